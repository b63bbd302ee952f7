"""A wake word from its spelling to a file that a device runs, with the smallest of everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters.convert import Options, convert
from converters.foreign.run import read_wakeword
from converters.loading import load_task
from converters.module import build_module
from converters.wakeword.learn import Plan
from converters.wakeword.learn_head import HeadPlan
from converters.wakeword.make import Made, Wishes, make
from converters.wakeword.material import Settings, Sounds
from converters.wakeword.network import Shape
from edge_sdk.audio.wavefile import wave_bytes
from edge_sdk.cli.main import NOUNS
from edge_sdk.errors import ConversionError, EdgeError, SourceError, StorageError, UsageError
from tests.fakes.foreign import write_openwake

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)

TINY = Settings(
    phrases=24,
    near_misses=24,
    words=40,
    judged=8,
    talk=8,
    spelling_epochs=1,
    plan=Plan(steps=8, batch=16, search_every=4),
    shape=Shape(16, ((3, 1), (5, 1)), ((5, 2),)),
    samples=2,
    hearings=1,
    again_s=20.0,
    head=HeadPlan(networks=2, steps=20, batch=64, hidden=16, searches=1),
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    chance = np.random.default_rng(0)
    for number in range(12):
        noise = (0.05 * chance.standard_normal(32000)).astype(np.float32)
        (folder / f"{number}.wav").write_bytes(wave_bytes(noise, 16000))
    (folder / "torn.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "the robbing of hay made every robin heavy and rubbing glasses knew a few views"
    )
    return path


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, room: Path, text: Path
) -> tuple[Path, Made, list[str]]:
    folder = tmp_path_factory.mktemp("wake") / "hey-robin"
    warnings: list[str] = []
    sounds = Sounds(background=(room,))
    wishes = Wishes(sounds=sounds, text=text, settings=TINY, budget_per_hour=5.0)
    return folder, make("hey robin", folder, wishes, warn=warnings.append), warnings


def test_everything_is_written(made: tuple[Path, Made, list[str]]) -> None:
    folder, result, warnings = made
    assert {path.name for path in folder.iterdir()} >= {
        "task.py",
        "weights.pt",
        "wakeword.json",
        "samples.npz",
        "evaluation.json",
        "evaluation.md",
        "det.png",
        "work",
    }
    about = json.loads((folder / "wakeword.json").read_text())
    assert about["phrase"] == "hey robin" and 0 < about["rule"]["cutoff"] <= 1
    found = result.evaluation
    assert found.false_accepts.hours > 0 and len(found.recall) == 4
    assert {kind.kind for kind in found.false_accepts.kinds} >= {"synthesised speech"}
    assert any("torn.wav" in text for text in warnings)
    assert any("--positives" in text for text in warnings)


def test_it_becomes_files_for_devices(made: tuple[Path, Made, list[str]], tmp_path: Path) -> None:
    folder, _, _ = made
    outcome = convert(
        f"{folder / 'task.py'}:Task",
        ["rpi4"],
        tmp_path / "converted",
        options=Options(
            weights=folder / "weights.pt",
            formats=("tflite",),
            schemes=("fp32",),  # eight steps of training leave no signal worth eight bits
        ),
    )
    sound = outcome.conversion.task.sound
    assert sound is not None and sound.words[0].label == "hey robin"
    assert [item.scheme for item in outcome.measured] == ["fp32"]


def test_a_second_phrase_uses_the_same_embedding_and_words(
    made: tuple[Path, Made, list[str]], text: Path, tmp_path: Path
) -> None:
    folder, result, _ = made
    before = (folder / "work" / "embedding.pt").stat().st_mtime_ns
    stages: list[str] = []
    work = folder / "work"
    wishes = Wishes(text=text, settings=TINY, work=work, embedding=result.embedding)
    make("view glass", tmp_path / "glass", wishes, stages.append)
    assert not any(text.startswith(("speak words", "learn to spell")) for text in stages)
    assert (folder / "work" / "embedding.pt").stat().st_mtime_ns == before


def test_a_published_embedding_needs_a_head_only(
    made: tuple[Path, Made, list[str]], room: Path, text: Path, tmp_path: Path
) -> None:
    write_openwake(tmp_path, convolutions=True)
    places = [tmp_path / name for name in ("kitchen", "hall", "radio")]
    for place in places:
        shutil.copytree(room, place)
    wishes = Wishes(
        sounds=Sounds(background=tuple(places)),
        text=text,
        settings=TINY,
        work=made[0] / "work",
        embedding=tmp_path,
    )
    stages: list[str] = []
    folder = tmp_path / "robin"
    found = make("hey robin", folder, wishes, stages.append)
    assert not any(text.startswith("learn to spell") for text in stages)
    for place in places:
        assert any(text.startswith(f"hear {place.name} again") for text in stages)
        assert any(text.startswith(f"learn without {place.name},") for text in stages)
    chosen = {kind.kind: kind.hours for kind in found.evaluation.chosen_on.kinds}
    tested = {kind.kind: kind.hours for kind in found.evaluation.false_accepts.kinds}
    assert chosen["hall"] > 2 * tested["hall"], "all that does not test chooses"
    assert found.evaluation.step_s == 0.08
    assert "one every 80 ms" in (folder / "evaluation.md").read_text()
    rule = found.evaluation.rule
    assert found.head is not None, "other programs take it"
    task = load_task(f"{folder / 'task.py'}:Task")
    assert task.sound is not None
    for (word,) in (read_wakeword(found.head, tmp_path).sound.words, task.sound.words):
        assert (word.label, word.cutoff) == ("hey robin", rule.cutoff)
        assert (word.window_steps, word.refractory_s) == (rule.window_steps, rule.refractory_s)
    batches = list(task.task.calibration(1, 1))
    assert len(batches) == TINY.samples and batches[0][0].shape == (60, 8, 32)
    build_module(task, folder / "weights.pt")


@pytest.mark.parametrize(
    ("phrase", "wishes", "kind", "code"),
    [
        ("---", Wishes(), UsageError, "usage.bad-phrase"),
        ("the long long story " * 5, Wishes(), UsageError, "usage.bad-phrase"),
        ("\u30ed\u30d3\u30f3", Wishes(), UsageError, "usage.bad-phrase"),
        ("hey \U0001f600", Wishes(), UsageError, "usage.bad-phrase"),
        ("hey robin", Wishes(piper=(Path("absent"),)), SourceError, "source.bad-voice"),
        (
            "hey robin",
            Wishes(sounds=Sounds(background=(Path("absent"),))),
            SourceError,
            "source.no-sounds",
        ),
        (
            "hey robin",
            Wishes(embedding=Path("absent.pt"), settings=TINY),
            ConversionError,
            "conversion.bad-embedding",
        ),
        (
            "hey robin",
            Wishes(embedding=Path(__file__).parent, settings=TINY),
            ConversionError,
            "conversion.bad-wakeword",
        ),
        ("hey robin", Wishes(text=Path("absent.txt")), SourceError, "source.missing-text"),
    ],
)
def test_bad_input_is_named_before_anything_is_spoken(
    tmp_path: Path, phrase: str, wishes: Wishes, kind: type[EdgeError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        make(phrase, tmp_path / "out", wishes)
    assert caught.value.code == code
    assert not (tmp_path / "out" / "task.py").exists()


def test_a_folder_of_broken_files_is_named_before_anything_is_spoken(
    text: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(20):
        (broken / f"{number}.wav").write_bytes(b"no sound")
    (tmp_path / "empty").mkdir()
    for sounds, code in (
        (Sounds(background=(broken,)), "source.no-sounds"),
        (Sounds(negatives=(broken,)), "source.no-sounds"),
        (Sounds(positives=(broken,)), "source.bad-wave"),
        (Sounds(recordings=(broken,)), "source.bad-wave"),
        (Sounds(positives=(tmp_path / "empty",)), "source.no-sounds"),
    ):
        with pytest.raises(SourceError) as caught:
            make("hey robin", tmp_path / "out", Wishes(sounds=sounds, text=text))
        assert caught.value.code == code
        assert "broken" in caught.value.cause or code != "source.bad-wave"


def test_a_result_that_could_not_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(StorageError) as caught:
        make("hey robin", tmp_path / "out", Wishes())
    assert caught.value.code == "storage.write-failed"


def test_a_short_phrase_is_warned_of(tmp_path: Path) -> None:
    warnings: list[str] = []
    with pytest.raises(ConversionError):
        make("no", tmp_path, Wishes(embedding=Path("absent.pt")), warn=warnings.append)
    assert any("is short" in text for text in warnings)


def test_the_command_tells_errors_and_help() -> None:
    from edge_sdk.cli.audio import command

    assert "audio" in NOUNS
    runner = CliRunner()
    shown = runner.invoke(command, ["wakeword", "train", "--help"])
    assert shown.exit_code == 0 and "--background" in shown.output
    for arguments, code in (
        (["--phrase", "---"], "usage.bad-phrase"),
        (["--phrase", "hey robin", "--budget", "0"], "usage.bad-budget"),
        (["--phrase", "hey robin", "--background", "absent"], "source.no-sounds"),
        (["--phrase", "hey robin", "-p", "absent"], "profile.unknown"),
    ):
        found = runner.invoke(command, ["wakeword", "train", "--json", *arguments])
        assert json.loads(found.output)["error"]["code"] == code
