"""A task without labels through the whole conversion, into a release a device would accept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.worker.golden import largest_error, read_vectors
from converters.convert import Options, Outcome, convert
from edge_sdk.bundle.release import create_release
from edge_sdk.errors import GateError, TaskError
from edge_sdk.runtime.negotiate import open_engine
from tests.zoo import zoo


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return convert(
        zoo()["MultiInput"],
        ["rpi4", "x86-generic"],
        tmp_path_factory.mktemp("generic") / "out",
        options=Options(schemes=("fp32", "static_wi8_ai8")),
    )


def test_accuracy_is_the_share_of_samples_within_the_tolerance(outcome: Outcome) -> None:
    task = outcome.conversion.task
    assert (task.kind, task.labels) == ("generic", ())
    assert (task.reference_accuracy, task.output_tolerance) == (1.0, 0.3)
    for item in outcome.measured:
        assert item.accuracy == item.agreement == 1.0
        assert item.sqnr_db > (90 if item.scheme == "fp32" else 15)


def test_specs_say_type_shape_and_layout_of_every_input(outcome: Outcome) -> None:
    for artifact in outcome.conversion.artifacts.values():
        image, values, category = artifact.inputs
        nhwc = artifact.format == "tflite"
        assert image.layout == ("NHWC" if nhwc else "NCHW")
        assert image.shape == ((1, 32, 32, 3) if nhwc else (1, 3, 32, 32))
        assert values.shape == (1, 6)
        assert category.dtype == ("int32" if nhwc else "int64")
        assert category.scale is None
        integers = artifact.scheme == "static_wi8_ai8"
        assert {image.dtype, values.dtype} == {"int8" if integers else "float32"}


def test_the_devices_golden_test_accepts_every_artifact(outcome: Outcome) -> None:
    conversion = outcome.conversion
    for digest, artifact in conversion.artifacts.items():
        data = (outcome.out / conversion.files[artifact.golden]).read_bytes()
        vectors = read_vectors(data, artifact)
        assert len(vectors.inputs) == 3
        engine = open_engine(outcome.out / conversion.files[digest], format=artifact.format)
        assert largest_error(engine, artifact, vectors) <= artifact.tolerance[artifact.runtime]
        shifted = [vectors.inputs[0] + 3.0, *vectors.inputs[1:]]
        other = type(vectors)(tuple(shifted), vectors.outputs)
        assert largest_error(engine, artifact, other) > artifact.tolerance[artifact.runtime]
        engine.close()


def test_it_becomes_a_release(outcome: Outcome, tmp_path: Path) -> None:
    release = create_release(outcome.out, tmp_path / "release", name="multi", version="1")
    assert release is not None


def test_a_tolerance_that_int8_misses_fails_the_gate(tmp_path: Path) -> None:
    source = Path(zoo()["MultiInput"].rpartition(":")[0])
    code = source.read_text().replace(
        '    """Three inputs', '    tolerance = 1e-3\n    """Three inputs'
    )
    (tmp_path / "strict.py").write_text(code)
    (tmp_path / "zoo_base.py").write_text((source.parent / "zoo_base.py").read_text())
    with pytest.raises(GateError) as caught:
        convert(
            f"{tmp_path / 'strict.py'}:MultiInput",
            ["x86-generic"],
            tmp_path / "out",
            options=Options(schemes=("static_wi8_ai8",), formats=("onnx",)),
        )
    assert caught.value.code == "gate.accuracy-drop"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('kind = "generic"', 'kind = "detection"', "detection"),
        ("tolerance = 0.3", "tolerance = 0", "tolerance"),
        ("tolerance = 0.3", "tolerance = True", "tolerance"),
    ],
)
def test_members_that_make_no_sense(tmp_path: Path, old: str, new: str, what: str) -> None:
    from converters.loading import load_task

    source = Path(zoo()["Gru"].rpartition(":")[0])
    base = (source.parent / "zoo_base.py").read_text().replace(old, new)
    (tmp_path / "zoo_base_changed.py").write_text(base)
    text = source.read_text().replace("from zoo_base import", "from zoo_base_changed import")
    (tmp_path / "changed.py").write_text(text)
    import sys

    sys.modules.pop("zoo_base_changed", None)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(TaskError, match=what) as caught:
            load_task(f"{tmp_path / 'changed.py'}:Gru")
    finally:
        sys.path.remove(str(tmp_path))
    assert caught.value.code == "task.member-invalid"


def test_within_judges_every_output_by_its_own_size() -> None:
    from converters.measure import sqnr_db, within

    wanted = np.tile(np.float32([100.0, 100.0, 0.1, 0.1]), (3, 1))
    got = wanted.copy()
    got[1, 0] += 5.0  # small next to the first output
    got[2, 2] += 0.05  # large next to the second
    assert within(got, wanted, (2, 2), 0.1).tolist() == [True, True, False]
    assert within(got, wanted, (4,), 0.1).tolist() == [True, True, True]
    assert sqnr_db(wanted, wanted) == 200.0
    assert 10 < sqnr_db(got, wanted, (2, 2)) < 15
