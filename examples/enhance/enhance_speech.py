"""Speech to learn from: what espeak-ng, flite and festival say, in all the voices they have.

Sentences are words in any order, which serves for sound. espeak-ng also reads numbers, in dozens of
languages: other sounds, other rhythms. Everything is at 16 kHz.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.samples import Floats, decode_samples
from edge_sdk.audio.wavefile import WaveFile

RATE_HZ = 16000
WORDS = """the of and to in is you that it he was for on are as with his they at be this have from or
had by hot word but what some we can out other were all there when up use your how said an each she
which do their time if will way about many then them write would like so these her long make thing see
him two has look more day could go come did number sound no most people my over know water than call
first who may down side been now find any new work part take get place made live where after back
little only round man year came show every good me give our under name very through just form sentence
great think say help low line differ turn cause much mean before move right boy old too same tell does
set three want air well also play small end put home read hand port large spell add even land here must
big high such follow act why ask men change went light kind off need house picture try us again animal
point mother world near build self earth father head stand own page should country found answer school
grow study still learn plant cover food sun four between state keep eye never last let thought city tree
cross farm hard start might story saw far sea draw left late run while press close night real life few
north open seem together next white children begin got walk example ease paper group always music those
both mark often letter until mile river car feet care second book carry took science eat room friend
began idea fish mountain stop once base hear horse cut sure watch color face wood main enough plain girl
usual young ready above ever red list though feel talk bird soon body dog family direct pose leave song
measure door product black short numeral class wind question happen complete ship area half rock order
fire south problem piece told knew pass since top whole king space heard best hour better true during
hundred five remember step early hold west ground interest reach fast verb sing listen six table travel
less morning ten simple several vowel toward war lay against pattern slow center love person money serve
appear road map rain rule govern pull cold notice voice unit power town fine certain fly fall lead cry
dark machine note wait plan figure star box noun field rest correct able pound done beauty drive stood
contain front teach week final gave green quick develop ocean warm free minute strong special mind behind
clear tail produce fact street inch multiply nothing course stay wheel full force blue object decide
surface deep moon island foot system busy test record boat common gold possible plane stead dry wonder
laugh thousand ago ran check game shape equate miss brought heat snow tire bring yes distant fill east
paint language among zero one seven eight nine""".split()
LANGUAGES = """en-us en-gb en-gb-scotland en-gb-x-rp en-029 en-us en-gb-x-gbclan de fr-fr es it pt-br nl sv da
nb fi pl cs sk hu ro bg ru uk el tr ar fa hi bn ta te ur sw id ms vi cmn ja ko et lv lt hr sr sl is ga cy
ca eu af sq hy ka az kk""".split()
VARIANTS = """m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 klatt5 klatt6 croak Alex
Alicia Andrea Andy Annie adam anika antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward
Gene gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john Lee linda marcelo Marco Mario max Michael
michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 travis victor zac
grandma grandpa whisper whisperf""".split()
FLITE = ("awb", "rms", "slt", "kal16")
FESTIVAL = ("kal_diphone", "cmu_us_slt_arctic_hts")


def speech(count: int, seed: int) -> Iterator[Floats]:
    """So many utterances of 2 to 8 seconds, (N,) each; two in five by espeak-ng."""
    picks = random.Random(seed)
    speakers = [speak for tool, speak in _SPEAKERS if shutil.which(tool)]
    if not speakers:
        raise SystemExit(
            "Nothing here can speak: apt-get install espeak-ng flite festival festvox-kallpc16k "
            "festvox-us-slt-hts"
        )
    while count > 0:
        found = speakers[picks.randrange(len(speakers))](picks)
        if len(found) > RATE_HZ:
            count -= 1
            yield found


def _sentence(picks: random.Random) -> str:
    words = [picks.choice(WORDS) for _ in range(picks.randrange(5, 16))]
    if len(words) > 8:
        words[picks.randrange(3, 6)] += ","
    return " ".join(words) + picks.choice((".", ".", "?"))


def _espeak(picks: random.Random) -> Floats:
    language = picks.choice(LANGUAGES)
    text = (
        _sentence(picks)
        if language.startswith("en") or picks.random() < 0.3
        else " ".join(str(picks.randrange(10 ** picks.randrange(1, 4))) for _ in range(7))
    )
    options = ["-s", str(picks.randrange(110, 240)), "-p", str(picks.randrange(5, 95))]
    voice = f"{language}+{picks.choice(VARIANTS)}"
    return _said(["espeak-ng", "-v", voice, *options, "--stdout", text])


def _flite(picks: random.Random) -> Floats:
    settings = [
        *("--setf", f"int_f0_target_mean={picks.randrange(80, 240)}"),
        *("--setf", f"int_f0_target_stddev={picks.randrange(8, 35)}"),
        *("--setf", f"duration_stretch={picks.uniform(0.75, 1.35):.2f}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        command = ["flite", "-voice", picks.choice(FLITE), *settings, "-t", _sentence(picks)]
        subprocess.run([*command, "-o", str(wave)], timeout=60, check=False, capture_output=True)
        return _decoded(wave.read_bytes()) if wave.exists() else np.zeros(0, np.float32)


def _festival(picks: random.Random) -> Floats:
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        script = (
            f"(voice_{picks.choice(FESTIVAL)}) (Parameter.set 'Duration_Stretch "
            f'{picks.uniform(0.75, 1.35):.2f}) (utt.save.wave (SynthText "{_sentence(picks)}") '
            f'"{wave}" \'riff)'
        )
        subprocess.run(
            ["festival", "--batch", script], timeout=60, check=False, capture_output=True
        )
        return _decoded(wave.read_bytes()) if wave.exists() else np.zeros(0, np.float32)


_SPEAKERS = (
    ("espeak-ng", _espeak),
    ("espeak-ng", _espeak),
    ("flite", _flite),
    ("flite", _flite),
    ("festival", _festival),
)


def _said(command: list[str]) -> Floats:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return _decoded(done.stdout) if done.returncode == 0 else np.zeros(0, np.float32)


def _decoded(wave: bytes) -> Floats:
    if len(wave) < 100:
        return np.zeros(0, np.float32)
    read = WaveFile(io.BytesIO(wave), "speech")
    frames = decode_samples(read.read(10**7), read.form)
    loud = np.flatnonzero(np.abs(frames[:, 0]) > 0.005)
    if not len(loud):
        return np.zeros(0, np.float32)
    return conditioned(frames[loud[0] : loud[-1] + 1], read.form.rate_hz, RATE_HZ)
