"""Wake words against real recordings, beside the peers that install.

Recordings of the phrase only test: the network has learned it from synthesised voices. Sound
without the phrase is split: what taught or chose the cutoff does not count here. Recall is given at
false accepts per hour, each system at its own cutoff on the same hours, and for ours also at the
cutoff that training chose on other sound, which is what a device would run.

    python benchmarks/wakeword.py --out out/jarvis    # trains first: an hour of one core
    python benchmarks/wakeword.py --out out/jarvis --background FOLDER --negatives FOLDER
    python benchmarks/wakeword.py --out out/jarvis --embedding OPENWAKEWORD_MODELS

``--quick`` trains a tenth; ``--peer alexa`` runs the peers' model of that name (they know "hey
jarvis", not "jarvis"); ``--openwakeword`` names the folder with openWakeWord's files, which then
run through our adapter. ``--check`` exits with 1 where a bar of ``LEAST`` or ``MOST`` is missed;
``--json`` prints one document. Peers: ``pip install pymicro-wakeword pymicro-features``, and
openWakeWord's models, e.g. of ``pip download openwakeword==0.5.1``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

ROOT, OWN = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent
# This folder has a converters.py of its own, which must not stand in for the package.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != OWN)]

from benchmarks.wakeword_systems import (  # noqa: E402
    RATE_HZ,
    Listener,
    imported,
    in_pytorch,
    micro_wake_word,
    on_device,
)
from converters.convert import Options, convert  # noqa: E402
from converters.sound.folders import read_sound, sound_files  # noqa: E402
from converters.wakeword.evaluate import (  # noqa: E402
    Rule,
    Trial,
    choose_rule,
    det_curve,
    false_accepts,
    recalls,
)
from converters.wakeword.make import Wishes, make  # noqa: E402
from converters.wakeword.material import Sounds  # noqa: E402
from converters.wakeword.network import FEATURES, STEP_S  # noqa: E402
from converters.wakeword.report import JSON, Evaluation, claim, recall_at  # noqa: E402
from converters.wakeword.speech_task import MIXED  # noqa: E402
from converters.wakeword.statistics import wilson_interval  # noqa: E402
from converters.wakeword.task import WEIGHTS  # noqa: E402
from converters.wakeword.train import name_of  # noqa: E402
from converters.wakeword.trial import CONDITIONS, Spoken, recorded_under  # noqa: E402
from edge_sdk.audio.samples import Floats  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "audio"
RATES = (0.0, 0.1, 0.5, 1.0, 2.0)
LEAST = {"clean recall at 0.5 per hour, %": 90.0, "at 0.1 per hour, %": 95.0}
MOST = {"recall lost on the device, points": 0.3, "95 of 100 decisions within, ms": 200.0}
TEACHERS = ("george", "jackson", "lucas", "nicolas")
TESTERS = ("theo", "yweweler")
"""Speakers of the digits."""
HOST = "x86-generic"
_BLOCK_S = 600


def main() -> int:
    """Train where nothing is there yet, listen, count."""
    options = _arguments().parse_args()
    folder = options.out or Path("out") / name_of(options.phrase)
    sounds = _sounds(options, folder / "split")
    if not (folder / "converted" / "conversion.json").is_file():
        _train(folder, sounds, options)
    material = _Material(sounds, options.limit)
    document: dict[str, Any] = {
        "phrase": options.phrase,
        "recordings": len(material.recordings),
        "hours": round(material.hours, 3),
        "systems": {},
    }
    ours = _ours(folder)
    document["ours"] = list(ours)
    for name, listener in {**ours, **_peers(options)}.items():
        print(f"{name} listens ...", file=sys.stderr)
        trial = material.heard_by(listener)
        document["systems"][name] = _row(trial)
        if name == list(ours)[-1]:
            rule = _rule(folder)
            document["own cutoff"] = _own(trial, rule)
            document["own window"] = _row(trial, rule)
    _print(document, as_json=options.json)
    return _judge(document) if options.check else 0


class _Material:
    """Recordings and hours, as sound: every system has a front end of its own."""

    def __init__(self, sounds: Sounds, limit: int) -> None:
        paths = sound_files(sounds.positives)[:limit]
        self.recordings = list(_readable(paths))
        noises = list(_readable(_environment("3")))
        self._spoken = {
            condition: list(recorded_under(condition, self.recordings, noises, seed=7))
            for condition in CONDITIONS
        }
        self._silent = {place.name: list(_blocks(place)) for place in sounds.negatives}

    @property
    def hours(self) -> float:
        """Of sound without the phrase."""
        return sum(len(b) for blocks in self._silent.values() for b in blocks) / RATE_HZ / 3600

    def heard_by(self, listener: Listener) -> Trial:
        """Everything once."""
        nothing = np.zeros((0, FEATURES.bands), np.float16)
        spoken = {
            condition: [
                (Spoken(nothing, one.first_s, one.end_s), listener(one.sound)) for one in many
            ]
            for condition, many in self._spoken.items()
        }
        silent = {
            kind: (sum(map(len, blocks)) / RATE_HZ / 3600, [listener(block) for block in blocks])
            for kind, blocks in self._silent.items()
        }
        return Trial(spoken, silent, STEP_S)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phrase", default="jarvis")
    parser.add_argument("--out", type=Path, help="folder of the wake word; trained when missing")
    parser.add_argument("--positives", type=Path, nargs="*", help="recordings of the phrase")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="to learn from")
    parser.add_argument("--background", type=Path, nargs="*", default=[], help="more, to learn by")
    parser.add_argument("--noise", type=Path, nargs="*", default=[], help="more, without talk")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="more, to test by")
    parser.add_argument("--embedding", type=Path, help="a trunk, or openWakeWord's folder")
    parser.add_argument("--work", type=Path, help="where speech is kept")
    parser.add_argument("--piper", type=Path, nargs="*", default=[])
    parser.add_argument("--peer", default="hey_jarvis", help="the peers' model")
    parser.add_argument("--openwakeword", type=Path, help="folder with its files")
    parser.add_argument("--limit", type=int, default=10**6, help="recordings at most")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    return parser


def _sounds(options: argparse.Namespace, split: Path) -> Sounds:
    """The recordings that lie beside the project, split, and what else was named."""
    named = name_of(options.phrase).replace("-", "_")
    words = DATA / "wakeword"
    others = sorted(p for p in words.iterdir() if p.name != named) if words.is_dir() else []
    positives = options.positives or [words / named]
    quiet = _linked(split / "environment", _environment("12"))
    digits = _linked(split / "digits", _digits(TEACHERS))
    test = (
        _linked(split / "environment-test", _environment("3")),
        _linked(split / "digits-test", _digits(TESTERS)),
    )
    return Sounds(
        background=(digits, *options.background),
        noise=(quiet, *options.noise),
        negatives=(*test, *others, *options.negatives),
        positives=tuple(positives),
        recordings=tuple(options.recordings),
    )


def _environment(folds: str) -> list[Path]:
    """Clips of these folds: the first two teach, the third only tests."""
    return [p for p in sorted((DATA / "environment").glob("*.ogg")) if p.name[0] in folds]


def _digits(speakers: Sequence[str]) -> list[Path]:
    return [p for p in sorted((DATA / "digits").glob("*.wav")) if p.stem.split("_")[1] in speakers]


def _linked(folder: Path, paths: Sequence[Path]) -> Path:
    """A folder of links to these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        link = folder / path.name
        if not link.exists():
            link.symlink_to(path)
    return folder


def _train(folder: Path, sounds: Sounds, options: argparse.Namespace) -> None:
    """Learn from synthesised phrases; background and cutoff from the sound that teaches."""

    def tell(text: str) -> None:
        print(text, file=sys.stderr)

    wishes = Wishes(
        sounds=sounds,
        piper=tuple(options.piper),
        embedding=options.embedding,
        work=options.work,
        quick=options.quick,
        seed=options.seed,
    )
    make(options.phrase, folder, wishes, tell, tell)
    weights = Options(weights=folder / WEIGHTS)
    reference, converted = f"{folder / 'task.py'}:Task", folder / "converted"
    convert(reference, [HOST], converted, options=weights, progress=tell)


def _readable(paths: Sequence[Path]) -> Iterator[Floats]:
    """Sounds; broken files, of which public collections have some, are named and left out."""
    for path in paths:
        try:
            yield read_sound(path, RATE_HZ)
        except SourceError as error:
            print(error.cause, file=sys.stderr)


def _blocks(place: Path) -> Iterator[Floats]:
    """A folder's sounds, joined to streams of ten minutes."""
    block: list[Floats] = []
    for sound in _readable(sound_files([place])):
        block.append(sound)
        if sum(map(len, block)) > _BLOCK_S * RATE_HZ:
            yield np.concatenate(block)
            block = []
    if block:
        yield np.concatenate(block)


def _ours(folder: Path) -> dict[str, Listener]:
    """First in float, last what a device runs."""
    found = {
        "ours, float PyTorch": in_pytorch(folder),
        "ours, int8 TFLite": on_device(folder, "tflite", "static_wi8_ai8"),
    }
    if any(MIXED in path.name for path in (folder / "converted" / "artifacts").glob("*.tflite")):
        found["ours, int8 head TFLite"] = on_device(folder, "tflite", MIXED)
    return found


def _peers(options: argparse.Namespace) -> dict[str, Listener]:
    peer, found = options.peer, {}
    try:
        found[f"microWakeWord {peer!r}"] = micro_wake_word(peer)
    except (ImportError, ValueError, OSError) as error:
        print(f"microWakeWord is left out: {error}", file=sys.stderr)
    for head in sorted((options.openwakeword or Path("-")).glob(f"{peer}_v*.onnx")):
        found[f"openWakeWord {peer!r}"] = imported(head, options.openwakeword)
    return found


def _rule(folder: Path) -> Rule:
    """What training chose, in steps of this script."""
    found = msgspec.json.decode((folder / JSON).read_bytes(), type=Evaluation)
    steps = round(found.rule.window_steps * found.step_s / STEP_S)
    return msgspec.structs.replace(found.rule, window_steps=steps)


def _row(trial: Trial, rule: Rule | None = None) -> dict[str, Any]:
    """Recall by condition at each rate, with the rule's window or the best in these hours."""
    rule = rule or choose_rule(trial, 0.5, worth=0.0, prompt_ms=math.inf)
    det = det_curve(trial, rule)
    found = {str(rate): recall_at(det, rate) for rate in RATES}
    points = {rate: point for rate, point in found.items() if point is not None}
    counts = {condition: len(many) for condition, many in trial.spoken.items()}
    return {
        "window_s": round(rule.window_steps * STEP_S, 3),
        "recall": {rate: point.recall for rate, point in points.items()},
        "clean_p95_ms": {
            rate: _clean_p95_ms(trial, msgspec.structs.replace(rule, cutoff=point.cutoff))
            for rate, point in points.items()
        },
        "interval": {
            rate: {
                condition: wilson_interval(round(share * counts[condition]), counts[condition])
                for condition, share in point.recall.items()
            }
            for rate, point in points.items()
        },
    }


def _clean_p95_ms(trial: Trial, rule: Rule) -> float:
    """From the end of the phrase to the report."""
    clean = Trial({"clean": trial.spoken["clean"]}, {}, trial.step_s)
    return recalls(clean, rule)[0].latency_ms[1]


def _own(trial: Trial, rule: Rule) -> dict[str, Any]:
    """At the cutoff that training chose on other sound."""
    taken = false_accepts(trial, rule)
    return {
        "cutoff": rule.cutoff,
        "window_steps": rule.window_steps,
        "claim": claim(taken, 0.5),
        "false_accepts": {kind.kind: (kind.false_accepts, kind.hours) for kind in taken.kinds},
        "recall": {
            row.condition: {
                "heard": row.heard,
                "recordings": row.recordings,
                "interval": row.interval,
                "latency_ms": row.latency_ms,
            }
            for row in recalls(trial, rule)
        },
    }


def figures(document: dict[str, Any]) -> dict[str, float]:
    """What the bars are about."""

    def clean(name: str, rate: str) -> float:
        return 100.0 * float(document["systems"][name]["recall"][rate]["clean"])

    exact, *_, device = document["ours"]
    latency_ms = document["own cutoff"]["recall"]["clean"]["latency_ms"]
    lost = max(0.0, clean(exact, "0.5") - clean(device, "0.5"))
    values = (clean(device, "0.5"), clean(device, "0.1"), lost, float(latency_ms[1]))
    return dict(zip((*LEAST, *MOST), values, strict=True))


def _judge(document: dict[str, Any]) -> int:
    found = figures(document)
    low = any(found[name] < bar for name, bar in LEAST.items())
    return int(low or any(found[name] > bar for name, bar in MOST.items()))


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document | {"figures": figures(document)}, indent=2))
        return
    print(f"{document['phrase']}: {document['recordings']} recordings, {document['hours']} hours")
    rows = {**document["systems"], "the device's with its own window": document["own window"]}
    for name, row in rows.items():
        print(f"\n{name} (window {row['window_s']} s)")
        for rate, recall in row["recall"].items():
            spans = row["interval"][rate]
            shares = "  ".join(
                f"{c} {share * 100:5.1f} ({spans[c][0] * 100:.1f} to {spans[c][1] * 100:.1f})"
                for c, share in recall.items()
            )
            late = f"95 of 100 clean within {row['clean_p95_ms'][rate]:.0f} ms"
            print(f"  at most {rate:>3} per hour: {shares}; {late}")
    own = document["own cutoff"]
    print(f"\nthe device's at the cutoff that training chose ({own['cutoff']:.4f}): {own['claim']}")
    for condition, row in own["recall"].items():
        low, high = row["interval"]
        print(
            f"  {condition}: {row['heard']} of {row['recordings']} "
            f"({low * 100:.1f} to {high * 100:.1f} %), after the phrase in the median "
            f"{row['latency_ms'][0]:.0f} ms, 95 of 100 within {row['latency_ms'][1]:.0f}"
        )
    print("  ".join(f"{name}: {value:.1f}" for name, value in figures(document).items()))


if __name__ == "__main__":
    sys.exit(main())
