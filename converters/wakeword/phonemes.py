"""One inventory of English sounds, whichever program speaks them.

espeak-ng writes what it says in the International Phonetic Alphabet, with finer distinctions than
recognition needs: length, flaps and weak vowels fall together here. An utterance is a tuple of
these sounds; a vowel may carry :data:`STRESS`, and :data:`GAP` stands between words.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Final

from edge_sdk.errors import SourceError

Phones = tuple[str, ...]

STRESS: Final = "ˈ"
GAP: Final = " "

# ours: (espeak-ng's mnemonic, flite's)
_VOWELS: Final[dict[str, tuple[str, str]]] = {
    "i": ("i:", "iy"),
    "ɪ": ("I", "ih"),
    "eɪ": ("eI", "ey"),
    "ɛ": ("E", "eh"),
    "æ": ("aa", "ae"),
    "ɑ": ("A:", "aa"),
    "ʌ": ("V", "ah"),
    "ə": ("@", "ax"),
    "ɚ": ("3:", "er"),
    "ɔ": ("O:", "ao"),
    "oʊ": ("oU", "ow"),
    "ʊ": ("U", "uh"),
    "u": ("u:", "uw"),
    "aɪ": ("aI", "ay"),
    "aʊ": ("aU", "aw"),
    "ɔɪ": ("OI", "oy"),
}
_CONSONANTS: Final[dict[str, tuple[str, str]]] = {
    "p": ("p", "p"),
    "b": ("b", "b"),
    "t": ("t", "t"),
    "d": ("d", "d"),
    "k": ("k", "k"),
    "ɡ": ("g", "g"),
    "f": ("f", "f"),
    "v": ("v", "v"),
    "θ": ("T", "th"),
    "ð": ("D", "dh"),
    "s": ("s", "s"),
    "z": ("z", "z"),
    "ʃ": ("S", "sh"),
    "ʒ": ("Z", "zh"),
    "tʃ": ("tS", "ch"),
    "dʒ": ("dZ", "jh"),
    "m": ("m", "m"),
    "n": ("n", "n"),
    "ŋ": ("N", "ng"),
    "l": ("l", "l"),
    "ɹ": ("r", "r"),
    "w": ("w", "w"),
    "j": ("j", "y"),
    "h": ("h", "hh"),
}
VOWELS: Final = tuple(_VOWELS)
CONSONANTS: Final = tuple(_CONSONANTS)
SOUNDS: Final = (*VOWELS, *CONSONANTS)
"""Their order is that of the scores of a network that spells (:mod:`converters.wakeword.spell`)."""

_SAME: Final = {
    "iː": "i", "ᵻ": "ɪ", "e": "ɛ", "a": "æ", "aː": "ɑ", "ɑː": "ɑ", "ɒ": "ɑ", "ɐ": "ə",
    "ɜː": "ɚ", "ɜ": "ɚ", "ɝ": "ɚ", "ɔː": "ɔ", "oː": "ɔ", "o": "ɔ", "əʊ": "oʊ", "uː": "u",
    "ɾ": "d", "ʔ": "t", "g": "ɡ", "r": "ɹ", "ɫ": "l", "x": "k", "ɬ": "l", "ʍ": "w",
}  # fmt: skip
_KNOWN: Final = {**{sound: sound for sound in SOUNDS}, **_SAME}
_LONGEST: Final = max(map(len, _KNOWN))
_TIMEOUT_S: Final = 60.0

_NEAR: Final = (
    "iɪeɪ", "ɛæʌ", "ɑɔʌ", "əʌɪ", "uʊ", "oʊɔ", "aɪaʊ", "pbtdkɡ", "fvθðszʃʒ", "mnŋ", "ɹlwj", "tʃdʒ",
    "tθ", "dð", "hf", "bvw",
)  # fmt: skip


def spelled(ipa: str) -> Phones:
    """What espeak-ng wrote, in our sounds; signs without a sound of their own are left out."""
    found: list[str] = []
    stressed = False
    at = 0
    while at < len(ipa):
        if ipa[at].isspace():
            if found and found[-1] != GAP:
                found.append(GAP)
            at += 1
            continue
        stressed = stressed or ipa[at] == STRESS
        for length in range(_LONGEST, 0, -1):
            sound = _KNOWN.get(ipa[at : at + length])
            if sound is not None:
                marked = stressed and sound in _VOWELS
                found.append(STRESS + sound if marked else sound)
                stressed = stressed and not marked
                at += length
                break
        else:
            at += 1
    return tuple(found[:-1] if found and found[-1] == GAP else found)


def plain(phones: Phones) -> Phones:
    """Without stress and gaps."""
    return tuple(phone.lstrip(STRESS) for phone in phones if phone != GAP)


def is_vowel(phone: str) -> bool:
    """Whether it can be the middle of a syllable."""
    return phone.lstrip(STRESS) in _VOWELS


def neighbours_of(sound: str) -> tuple[str, ...]:
    """Sounds of the same kind that are easily taken for this one."""
    found: list[str] = []
    for group in _NEAR:
        members = spelled(group)
        if sound in members:
            found += [other for other in members if other != sound and other not in found]
    return tuple(found)


def for_espeak(phones: Phones) -> str:
    """As espeak-ng takes them in double brackets."""
    parts = []
    for phone in phones:
        if phone == GAP:
            parts.append(" ")
            continue
        sound = phone.lstrip(STRESS)
        mark = "'" if phone.startswith(STRESS) else ""
        parts.append(mark + (_VOWELS.get(sound) or _CONSONANTS[sound])[0])
    # A bar keeps two mnemonics from being read as one: t|S is not tS.
    return "[[" + "|".join(parts).replace("| |", " ") + "]]"


def for_flite(phones: Phones) -> str:
    """As flite's -p takes them."""
    parts = []
    for phone in phones:
        sound = phone.lstrip(STRESS)
        if sound in _VOWELS:
            parts.append(_VOWELS[sound][1] + ("1" if phone.startswith(STRESS) else "0"))
        elif sound in _CONSONANTS:
            parts.append(_CONSONANTS[sound][1])
    return " ".join(["pau", *parts, "pau"])


def pronounced(lines: Sequence[str], language: str = "en-us") -> list[Phones]:
    """How each line is said; empty where nothing of it can be.

    Args:
        lines: words or sentences, one utterance each.
        language: an espeak-ng voice.

    Raises:
        SourceError: ``source.no-voices`` without espeak-ng, ``source.voice-failed``.
    """
    # A line is spoken to its end at a full stop only; digits and signs are read aloud.
    text = "\n".join(re.sub(r"[\s.!?;:,\[\]]+", " ", line) + "." for line in lines)
    command = ["espeak-ng", "-q", "--ipa", "-b", "1", "-v", language]
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise SourceError(
            "no-voices",
            "Pronunciation needs espeak-ng, which is not installed.",
            "Install it, e.g. with: apt-get install espeak-ng",
        ) from error
    found = done.stdout.decode(errors="replace").splitlines()
    if done.returncode != 0 or len(found) != len(lines):
        return [_alone(line, language) for line in lines] if len(lines) > 1 else [()]
    return [spelled(line) for line in found]


def _alone(line: str, language: str) -> Phones:
    return pronounced([line], language)[0]
