"""Wake words against real recordings, beside the peers that install.

Recordings of the phrase only test: the network has learned it from synthesised voices. Sound
without the phrase is split: what taught or chose the cutoff does not count here. Recall is given at
false accepts per hour, each system at its own cutoff on the same hours, and for ours also at the
cutoff that training chose on other sound, which is what a device would run.

    python benchmarks/wakeword.py --out out/jarvis    # trains first: an hour of one core
    python benchmarks/wakeword.py --out out/jarvis --background FOLDER --negatives FOLDER

``--quick`` trains a tenth; ``--peer alexa`` runs the peers' model of that name (they know "hey
jarvis", not "jarvis"); ``--check`` exits with 1 where a bar of ``BARS`` is missed; ``--json``
prints one document. Peers: ``pip install pymicro-wakeword pymicro-features pyopen-wakeword``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT, OWN = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent
# This folder has a converters.py of its own, which must not stand in for the package.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != OWN)]

from benchmarks.wakeword_systems import (  # noqa: E402
    RATE_HZ,
    Listener,
    in_pytorch,
    micro_wake_word,
    on_device,
    open_wake_word,
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
from converters.wakeword.network import FEATURES  # noqa: E402
from converters.wakeword.report import claim, recall_at  # noqa: E402
from converters.wakeword.task import read_about  # noqa: E402
from converters.wakeword.train import Sounds, name_of  # noqa: E402
from converters.wakeword.trial import CONDITIONS, Spoken, recorded_under  # noqa: E402
from edge_sdk.audio.samples import Floats  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "audio"
RATES = (0.0, 0.1, 0.5, 1.0)
BARS = {"clean recall at 0.5 per hour": 0.90, "recall lost by int8": 0.003}
INT8, FLOAT = "ours, int8 TFLite", "ours, float PyTorch"
TEACHERS = ("george", "jackson", "lucas", "nicolas")
TESTERS = ("theo", "yweweler")
"""Speakers of the digits."""
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
    rule = read_about(folder).rule
    with ExitStack() as stack:
        for name, listener in _systems(folder, options.peer, stack).items():
            print(f"{name} listens ...", file=sys.stderr)
            trial = material.heard_by(listener)
            document["systems"][name] = _row(trial)
            if name == INT8:
                document["own cutoff"] = _own(trial, rule)
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
                (Spoken(nothing, one.first_step, one.end_step), listener(one.sound)) for one in many
            ]
            for condition, many in self._spoken.items()
        }
        silent = {
            kind: (sum(map(len, blocks)) / RATE_HZ / 3600, [listener(block) for block in blocks])
            for kind, blocks in self._silent.items()
        }
        return Trial(spoken, silent)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phrase", default="jarvis")
    parser.add_argument("--out", type=Path, help="folder of the wake word; trained when missing")
    parser.add_argument("--positives", type=Path, nargs="*", help="recordings of the phrase")
    parser.add_argument("--background", type=Path, nargs="*", default=[], help="more, to learn by")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="more, to test by")
    parser.add_argument("--embedding", type=Path, help="trained before")
    parser.add_argument("--work", type=Path, help="where speech is kept")
    parser.add_argument("--piper", type=Path, nargs="*", default=[])
    parser.add_argument("--peer", default="hey_jarvis", help="the peers' model")
    parser.add_argument("--limit", type=int, default=10**6, help="recordings at most")
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
    teach = (
        _linked(split / "environment", _environment("12")),
        _linked(split / "digits", _digits(TEACHERS)),
    )
    test = (
        _linked(split / "environment-test", _environment("3")),
        _linked(split / "digits-test", _digits(TESTERS)),
    )
    return Sounds(
        background=(*teach, *options.background),
        negatives=(*test, *others, *options.negatives),
        positives=tuple(positives),
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
    )
    make(options.phrase, folder, wishes, tell, tell)
    convert(
        f"{folder / 'task.py'}:Task",
        ["x86-generic"],
        folder / "converted",
        options=Options(weights=folder / "weights.pt"),
        progress=tell,
    )


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


def _systems(folder: Path, peer: str, stack: ExitStack) -> dict[str, Listener]:
    found: dict[str, Listener] = {FLOAT: in_pytorch(folder)}
    found[INT8] = stack.enter_context(on_device(folder, "static_wi8_ai8"))
    for name, build in (("microWakeWord", micro_wake_word), ("openWakeWord", open_wake_word)):
        try:
            found[f"{name} {peer!r}"] = build(peer)
        except (ImportError, ValueError, OSError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def _row(trial: Trial) -> dict[str, Any]:
    """Recall by condition at each rate, with the best window for half an accept per hour."""
    rule = choose_rule(trial, 0.5)
    det = det_curve(trial, rule)
    points = {str(rate): recall_at(det, rate) for rate in RATES}
    return {
        "window_steps": rule.window_steps,
        "recall": {rate: point.recall for rate, point in points.items() if point is not None},
    }


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

    def clean(name: str) -> float:
        return float(document["systems"][name]["recall"]["0.5"]["clean"])

    return {
        "clean recall at 0.5 per hour": clean(INT8),
        "recall lost by int8": max(0.0, clean(FLOAT) - clean(INT8)),
    }


def _judge(document: dict[str, Any]) -> int:
    found = figures(document)
    good = found["clean recall at 0.5 per hour"] >= BARS["clean recall at 0.5 per hour"]
    return 0 if good and found["recall lost by int8"] <= BARS["recall lost by int8"] else 1


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document | {"figures": figures(document)}, indent=2))
        return
    print(f"{document['phrase']}: {document['recordings']} recordings, {document['hours']} hours")
    for name, row in document["systems"].items():
        print(f"\n{name} (window {row['window_steps']})")
        for rate, recall in row["recall"].items():
            shares = "  ".join(f"{c} {share * 100:5.1f}" for c, share in recall.items())
            print(f"  at most {rate:>3} per hour: {shares}")
    own = document["own cutoff"]
    print(f"\nint8 at the cutoff that training chose ({own['cutoff']:.4f}): {own['claim']}")
    for condition, row in own["recall"].items():
        low, high = row["interval"]
        print(
            f"  {condition}: {row['heard']} of {row['recordings']} "
            f"({low * 100:.1f} to {high * 100:.1f} %), median {row['latency_ms'][0]:.0f} ms"
        )
    print("  ".join(f"{name}: {value * 100:.1f} %" for name, value in figures(document).items()))


if __name__ == "__main__":
    sys.exit(main())
