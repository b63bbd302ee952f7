"""``edge model fit`` for real: a task with two widths, sized to profiles and budgets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from converters.bench import read_conversion
from converters.cache import Cache
from converters.fit.estimate import Choices
from converters.fit.run import Fit, FitOptions, fit
from converters.fit.search import Budget
from converters.loading import load_task
from converters.module import build_module, load_weights, save_weights
from edge_sdk.cli.model_fit import fit as command
from edge_sdk.errors import TaskError, UsageError

WIDE = """
widths = (1.0, 0.5)

def build(self, width=1.0):
    torch.manual_seed(1)
    net = Net()
    if width != 1.0:
        net.body[3] = nn.Conv2d(16, 16, 3, 2, 1, bias=False)
        net.body[4] = nn.BatchNorm2d(16)
        net.head = nn.Linear(48, 3)
    return net
"""
SCHEMES = ("fp32", "static_wi8_ai8")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.unit.converters.conftest import TINY, variant

    path = tmp_path_factory.mktemp("wide") / "wide_task.py"
    path.write_text(variant(TINY, code=WIDE))
    return f"{path}:Variant"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def found(wide: str, folder: Path) -> Fit:
    options = FitOptions(
        budget=Budget(latency_ms=100.0, memory_mib=500.0),
        choices=Choices(schemes=SCHEMES, runtimes=("litert",), threads=(1,)),
        resolutions=((24, 24), (12, 12)),
    )
    cache = Cache(folder / "cache")
    return fit(wide, ["rpi4", "rpi5"], folder / "out", options=options, cache=cache)


def test_every_combination_is_considered_and_accounted_for(found: Fit) -> None:
    for name in ("rpi4", "rpi5"):
        verdict = found.verdicts[name]
        assert found.considered[name] == 2 * 2 * 2  # widths, resolutions, schemes
        names = [item.facts.point for item in (*verdict.ladder, *verdict.rejected)]
        assert len(names) == len(set(names)) == 8
    assert found.built == 8  # once for both profiles


def test_the_folder_is_a_conversion_of_what_is_on_the_ladders(found: Fit, folder: Path) -> None:
    conversion = read_conversion(folder / "out")
    for name, verdict in found.verdicts.items():
        points = conversion.ladders[name]
        assert [point.artifact for point in points] == [i.facts.digest for i in verdict.ladder]
        assert len({point.id for point in points}) == len(points)
        for point in points:
            path = folder / "out" / conversion.files[point.artifact]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == point.artifact
            assert ("-w0.5-" in path.name) == (point.channel_width == 0.5)
    used = {point.artifact for points in conversion.ladders.values() for point in points}
    assert set(conversion.artifacts) == used
    assert len(list((folder / "out" / "artifacts").iterdir())) == len(used)


def test_fit_json_tells_the_whole_search(found: Fit, folder: Path) -> None:
    document = json.loads((folder / "out" / "fit.json").read_text())
    assert document["budget"] == {"latency_ms": 100.0, "memory_mib": 500.0}
    for name, verdict in found.verdicts.items():
        said = document["profiles"][name]
        assert len(said["ladder"]) == len(verdict.ladder) >= 1
        assert all(item["reason"] for item in said["rejected"])


def test_a_narrower_width_is_smaller_and_compared_with_the_full_one(found: Fit) -> None:
    facts = {
        item.facts.point: item.facts
        for item in (*found.verdicts["rpi4"].ladder, *found.verdicts["rpi4"].rejected)
    }
    for point, wide in facts.items():
        if point.width == 1.0:
            narrow = next(
                other
                for where, other in facts.items()
                if (where.width, where.size, where.scheme) == (0.5, point.size, point.scheme)
            )
            assert narrow.model_mib < wide.model_mib
            assert narrow.distance > 0


def test_the_command_says_what_would_have_to_give_and_that_is_enough(
    found: Fit, wide: str, folder: Path
) -> None:
    """The second run, with the budget it named, finds something; both reuse the cache."""

    def run(*more: str) -> tuple[int, str]:
        arguments = [
            *(wide, "-p", "rpi4", "--runtime", "litert", "--threads", "1", "--force"),
            *("--schemes", ",".join(SCHEMES), "--cache", str(folder / "cache")),
            *("-o", str(folder / "second"), *more),
        ]
        result = CliRunner().invoke(command, arguments)
        return result.exit_code, result.output

    code, text = run("--latency-ms", "0.0001")
    assert code == 3, text
    assert "gate.nothing-fits" in text
    assert not (folder / "second").exists()
    needed = text.rpartition("--latency-ms ")[2].split()[0]
    code, text = run("--latency-ms", needed, "--json")
    assert code == 0, text
    document = json.loads(text[text.index("{") :])
    assert document["result"]["profiles"]["rpi4"]["ladder"]
    assert (folder / "second" / "conversion.json").is_file()


DIGITS = Path(__file__).parents[3] / "examples/digits/task.py"


def test_on_digits_every_budget_that_has_to_give_is_named_and_giving_it_is_enough(
    tmp_path: Path,
) -> None:
    """Latency, memory and accuracy at once: the nearest candidate is measured for the hint."""
    save_weights(build_module(load_task(f"{DIGITS}:Digits"), None), tmp_path / "w.pt")
    arguments = [f"{DIGITS}:Digits", "-p", "rpi4", "--resolutions", "24x24", "--runtime", "litert"]
    arguments += ["--schemes", "fp32,static_wi8_ai8", "--threads", "4", "--json"]
    arguments += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    arguments += ["-w", str(tmp_path / "w.pt")]
    budget = ["--latency-ms", "0.0001", "--memory-mib", "0.5", "--accuracy-drop", "0"]
    result = CliRunner().invoke(command, [*arguments, *budget])
    assert result.exit_code == 3, result.output
    hint = json.loads(result.stdout)["error"]["hint"]
    given = hint.partition(" lets ")[0].partition(": ")[2].replace(" and ", " ").split()
    assert {"--latency-ms", "--memory-mib"} <= set(given), "memory is known, so it was measured"
    assert "as far as is known" not in hint
    result = CliRunner().invoke(command, [*arguments, *budget, *given])  # later ones win
    assert result.exit_code == 0, result.output
    ladder = json.loads(result.stdout)["result"]["profiles"]["rpi4"]["ladder"]
    named = hint.partition(" lets ")[2].partition(" in.")[0]
    assert named in [point["candidate"] for point in ladder]


def test_a_narrower_width_takes_the_first_channels_of_the_weights(
    wide: str, tmp_path: Path
) -> None:
    full = build_module(load_task(wide), None)
    save_weights(full, tmp_path / "w.pt")
    narrow = build_module(load_task(wide, width=0.5), tmp_path / "w.pt")
    mine, theirs = narrow.state_dict(), full.state_dict()
    for name, tensor in mine.items():
        cut = theirs[name][tuple(slice(0, side) for side in tensor.shape)]
        assert torch.equal(tensor, cut), name
    assert mine["head.weight"].shape == (3, 48)
    with pytest.raises(TaskError, match="does not fit") as caught:
        load_weights(narrow, tmp_path / "w.pt")
    assert caught.value.code == "task.bad-weights"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--latency-ms", "-1"], "usage.bad-budget"),
        (["--latency-ms", "nan"], "usage.bad-budget"),
        (["--accuracy-drop", "5"], "usage.bad-budget"),
        (["--threads", "many"], "usage.bad-number"),
        (["--threads", "1.5"], "usage.bad-number"),
        (["--threads", "0"], "usage.bad-number"),
        (["--widths", "nan"], "usage.bad-number"),
        (["--latency-ms", "inf"], "usage.bad-budget"),
        (["--memory-mib", "0"], "usage.bad-budget"),
        (["--runtime", "litret"], "usage.unknown-runtime"),
        (["--resolutions", "big"], "usage.bad-resolution"),
        (["--widths", "0.3"], "usage.unknown-width"),
        (["--resolutions", "7x7"], "usage.unknown-resolution"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    wide: str, tmp_path: Path, options: list[str], code: str
) -> None:
    arguments = [wide, "-p", "rpi4", "-o", str(tmp_path / "out"), "--no-cache", *options]
    result = CliRunner().invoke(command, arguments)
    assert code in result.output
    assert result.exit_code == UsageError.exit_code
    assert list(tmp_path.iterdir()) == []
