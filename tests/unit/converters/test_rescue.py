"""Artifacts that miss the gate: repaired, mixed, or refused with the layers that are to blame."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.cache import Cache
from converters.convert import Options, Outcome, convert
from converters.gate import check_gate, step_of
from converters.inspect import inspect_model, problems_with
from converters.rescue_worker import mixed_scheme, pays
from converters.results import LayerScore, Sensitivity, warnings_about
from converters.schemes import SUPPORTED, parse_scheme
from converters.sensitivity import keep_steps
from converters.settings import Settings
from edge_sdk.errors import GateError
from tests.fakes.measured import measured

TRAINED = '''
class Badly(Net):
    """Loads the plain network's weights, then spreads its channels' ranges."""

    def load_state_dict(self, state, *rest, **options):
        found = super().load_state_dict(state, *rest, **options)
        spread(self)
        return found


def spread(net):
    factor = torch.logspace(0, {decades}, 16)
    with torch.no_grad():
        net.body[1].weight.mul_(factor)
        net.body[1].bias.mul_(factor)
        net.body[3].weight.div_(factor.reshape(1, -1, 1, 1))


class Hard(Tiny):
    name = "hard"
    resolutions = ((12, 12),)
    schemes = ("fp32", "static_wi8_ai8")

    def build(self):
        torch.manual_seed(1)
        return Badly()
'''


@pytest.fixture(scope="module")
def hard(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny task with channels whose ranges are five decades apart."""
    source = Path(tiny.rpartition(":")[0]).read_text()
    path = tmp_path_factory.mktemp("hard") / "hard_task.py"
    path.write_text(source + TRAINED.replace("{decades}", "5"))
    return f"{path}:Hard"


def run(ref: str, weights: Path, out: Path, cache: Cache | None = None, **options) -> Outcome:
    chosen = {"weights": weights, "formats": ("onnx",), "max_drop": 0.0, **options}
    return convert(ref, ["x86-generic"], out, options=Options(**chosen), cache=cache)


@dataclass(frozen=True)
class Rescued:
    """A first conversion, and the cache that it filled."""

    outcome: Outcome
    cache: Cache


@pytest.fixture(scope="module")
def rescued(hard: str, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """The hard task converted, once for each value of ``repair``."""

    @functools.cache
    def make(repair: str) -> Rescued:
        folder = tmp_path_factory.mktemp("rescued")
        cache = Cache(folder / "cache")
        return Rescued(run(hard, tiny_weights, folder / "out", cache, repair=repair), cache)

    return make


def check_folder(outcome: Outcome) -> None:
    """Every file that is listed lies there, and nothing else does."""
    listed = {outcome.out / name for name in outcome.conversion.files.values()}
    lying = {p for folder in ("artifacts", "golden") for p in (outcome.out / folder).iterdir()}
    assert listed == lying
    for digest, name in outcome.conversion.files.items():
        assert hashlib.sha256((outcome.out / name).read_bytes()).hexdigest() == digest


def test_equalization_brings_an_artifact_through_the_gate(rescued) -> None:
    outcome = rescued("auto").outcome
    (repair,) = [item for item in outcome.repairs if item.kind == "equalization"]
    assert repair.applied and repair.after_db > repair.before_db + 6
    assert repair.after_accuracy > repair.before_accuracy
    schemes = {item.scheme: item.scheme_drop for item in outcome.measured}
    assert schemes["static_wi8_ai8"] <= 0.0
    assert outcome.sensitivities == ()
    check_folder(outcome)


@pytest.mark.parametrize("repair", ["auto", "off"])
def test_a_rescue_is_not_repeated(rescued, hard, tiny_weights, tmp_path, repair) -> None:
    """Equalized or mixed: the second conversion takes file and findings from the cache."""
    first, cache = rescued(repair).outcome, rescued(repair).cache
    second = run(hard, tiny_weights, tmp_path / "second", cache, repair=repair)
    assert first.passes[0] == 0 and second.passes == (first.passes[1], 0)
    assert first.repairs or first.sensitivities
    assert (second.repairs, second.sensitivities) == (first.repairs, first.sensitivities)
    assert [item.digest for item in second.measured] == [item.digest for item in first.measured]
    check_folder(second)
    # What counts as rescued has changed.
    other = run(hard, tiny_weights, tmp_path / "other", cache, repair=repair, max_drop=0.001)
    assert other.passes[1] > 0
    check_folder(other)


def test_mixed_precision_keeps_the_worst_layers(rescued) -> None:
    outcome = rescued("off").outcome
    assert outcome.repairs == ()
    assert {item.scheme for item in outcome.measured} == {"fp32", "mixed_static_wi8_ai8_fp32"}
    (found,) = outcome.sensitivities
    assert found.kept == tuple(score.name for score in found.layers[: len(found.kept)])
    assert [s.sqnr_db for s in found.layers] == sorted(s.sqnr_db for s in found.layers)
    mixed = next(item for item in outcome.measured if "mixed" in item.scheme)
    facts = inspect_model(outcome.out / "artifacts" / mixed.path.name)
    assert problems_with(facts, parse_scheme(mixed.scheme)) == []
    dtypes = {layer.weight_dtype for layer in facts.layers}
    assert dtypes == {"int8", "float32"}
    assert mixed.scheme_drop <= 0.0
    candidates = outcome.ladders["x86-generic"].candidates
    assert mixed.scheme in {point.scheme for point in candidates}  # it counts as its base
    check_folder(outcome)


def test_a_refused_artifact_names_its_step_and_layers(hard, tiny_weights, tmp_path) -> None:
    with pytest.raises(GateError) as caught:
        run(hard, tiny_weights, tmp_path / "out", repair="off", mixed=False)
    assert (caught.value.code, caught.value.exit_code) == ("gate.accuracy-drop", 3)
    assert "step to int8" in caught.value.cause
    assert "body." in caught.value.cause and " dB)" in caught.value.cause
    assert not (tmp_path / "out").exists()


def test_options_reach_the_quantizer(tiny, tiny_weights, tmp_path) -> None:
    """Another calibration and granularity give another file; ai16 comes with a warning."""
    digests, cache = set(), Cache(tmp_path / "cache")
    for settings in (Settings(), Settings(calibration="mse"), Settings(granularity="tensor")):
        outcome = run(
            tiny,
            tiny_weights,
            tmp_path / "out",
            cache,
            settings=settings,
            resolutions=((12, 12),),
            schemes=("static_wi8_ai16",),
            max_drop=0.1,
        )
        digests |= {item.digest for item in outcome.measured if item.scheme != "fp32"}
        assert ["slower" in text for text in outcome.warnings] == [True]
    assert len(digests) == 3


@given(st.floats(-50, 90), st.floats(-50, 90), st.floats(0, 1), st.floats(0, 1))
def test_a_repair_that_pays_makes_nothing_worse(before_db, after_db, before, after) -> None:
    if pays(before_db, after_db, before, after):
        assert after_db > before_db or after > before
        assert after_db >= before_db - 0.1 and after >= before
    assert not pays(before_db, before_db, before, before)


@given(st.integers(0, 120))
def test_steps_keep_ever_more_and_never_all(count) -> None:
    scores = [LayerScore(f"l{index}", "Conv", float(index)) for index in range(count)]
    steps = list(keep_steps(scores))
    sizes = [len(step) for step in steps]
    assert sizes == sorted(set(sizes))
    assert all(0 < size < count for size in sizes)
    assert all(step == tuple(score.name for score in scores[: len(step)]) for step in steps)
    assert bool(steps) == (count > 1)
    assert len(steps) <= 12


def test_the_first_step_that_fails_is_named() -> None:
    """int8 lost more, but it is built on fp16."""
    from dataclasses import replace

    items = [
        replace(measured("static_wi8_ai8", "8x8", "onnx", 0.5, 1.0), scheme_drop=0.4),
        replace(measured("wfp16", "8x8", "onnx", 0.9, 1.0), scheme_drop=0.05),
    ]
    scores = (LayerScore("norm", "LayerNormalization", 3.0),)
    found = (Sensitivity("onnx", "8x8", "wfp16", scores),)
    with pytest.raises(GateError, match=r"step to fp16 fails; .*norm \(3\.0 dB\)"):
        check_gate(items, sensitivities=found)


def test_every_scheme_belongs_to_a_step() -> None:
    assert [step_of(name) for name in ("fp32", "wfp16", "mixed_fp16_fp32")] == [
        "fp32",
        "fp16",
        "fp16",
    ]
    assert {step_of(name) for name in SUPPORTED if "wi8" in name} == {"int8"}
    assert [name for name in SUPPORTED if mixed_scheme(name)] == [
        "static_wi8_ai16",
        "static_wi8_ai8",
        "static_wi8_au8",
    ]


def test_only_sixteen_bits_are_warned_about() -> None:
    items = [measured(name, "8x8", "onnx", 0.9, 0.0) for name in SUPPORTED]
    assert len(warnings_about(items)) == 1
