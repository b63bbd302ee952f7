"""What a file says about itself: in the standard places, read back, harmless to runtimes."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.inspect import inspect_model
from converters.metadata import ModelNotes, notes_for, read_notes, write_notes
from converters.metadata.tflite_notes import NAME
from converters.metadata.tflite_prefix import with_metadata
from edge_sdk.contracts.manifest import Preprocess
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import write_onnx, write_tflite

RGB = Preprocess(color="rgb", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
KINDS = ("onnx", "tflite")
SHAPE = (1, 6, 6, 3)


def write(path: Path) -> Path:
    if path.suffix == ".onnx":
        return write_onnx(path, layers=2)
    return write_tflite(path, shape=SHAPE, operator="CONV_2D")


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / f"net.{request.param}")


def noted(path: Path, labels: tuple[str, ...] = ("cat", "dög"), **other: object) -> ModelNotes:
    fields = {"preprocess": RGB, "provenance": {"torch": "2"}} | other
    return notes_for(
        path, name="net", scheme="fp32", kind="classification", labels=labels, **fields
    )


def answer(path: Path) -> np.ndarray:
    engine = open_engine(path, format=path.suffix[1:])
    values = np.random.default_rng(3).normal(size=engine.inputs[0].shape).astype(np.float32)
    return np.array(engine.run([values])[0])


def test_notes_come_back_and_the_file_still_answers_the_same(model: Path) -> None:
    before, facts = answer(model), inspect_model(model)
    notes = noted(model)
    write_notes(model, notes)
    assert read_notes(model) == notes
    assert notes.inputs == facts.inputs
    assert np.array_equal(answer(model), before)
    after = inspect_model(model)
    assert (after.ops, after.layers, after.inputs) == (facts.ops, facts.layers, facts.inputs)
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_later_notes_replace_earlier_ones_reproducibly(model: Path, tmp_path: Path) -> None:
    copy = shutil.copy(model, tmp_path / f"copy{model.suffix}")
    write_notes(model, noted(model))
    write_notes(copy, noted(copy))
    assert model.read_bytes() == copy.read_bytes()
    other = noted(model, ("one",), preprocess=None)
    write_notes(model, other)
    assert read_notes(model) == other


def test_a_file_without_notes_has_none(model: Path) -> None:
    assert read_notes(model) is None


def test_the_onnx_keys_that_the_standard_defines(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    write_notes(
        path, noted(path, preprocess=Preprocess(color="rgb", mean=(0.0,) * 3, std=(255.0,) * 3))
    )
    found = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert found["Image.BitmapPixelFormat"] == "Rgb8"
    assert found["Image.NominalPixelRange"] == "Normalized_0_1"
    model = onnx.load(str(path))
    del model.metadata_props[0]  # another tool's file: the standard keys alone
    assert next(entry.key for entry in model.metadata_props).startswith("Image.")
    onnx.save(model, str(path))
    read = read_notes(path)
    assert read is not None and read.preprocess is not None
    assert (read.preprocess.mean, read.preprocess.std) == ((0.0,) * 3, (255.0,) * 3)


def test_labels_are_the_associated_file_that_the_tflite_standard_names(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tflite")
    write_notes(path, noted(path))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["cat", "dög"]
        assert archive.testzip() is None
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    assert NAME.encode() in [model.Metadata(i).Name() for i in range(model.MetadataLength())]


def test_standard_metadata_of_another_tool_is_understood(tmp_path: Path) -> None:
    """Ours without its custom note is what another tool would have written."""
    path = write(tmp_path / "m.tflite")
    write_notes(path, noted(path))
    path.write_bytes(path.read_bytes().replace(b"edge.model", b"else.model"))
    read = read_notes(path)
    assert read is not None
    assert (read.name, read.labels, read.scheme) == ("net", ("cat", "dög"), "")
    assert read.preprocess is not None
    assert np.allclose(read.preprocess.mean, RGB.mean) and np.allclose(read.preprocess.std, RGB.std)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_never_raises_anything_but_a_conversion_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    path = write(tmp_path / f"m.{kind}")
    write_notes(path, noted(path))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    for act in (read_notes, lambda p: write_notes(p, ModelNotes(name="x", scheme="fp32"))):
        try:
            act(path)
        except ConversionError as error:
            assert error.slug in ("unreadable-model", "unknown-format")


@given(st.binary(max_size=5000), st.text("abcXYZ_", min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_content_fits_and_everything_old_is_still_there(content: bytes, name: str) -> None:
    with TemporaryDirectory() as folder:
        old = write(Path(folder) / "m.tflite").read_bytes()
    new = with_metadata(old, name, content)
    assert new.endswith(old) and (len(new) - len(old)) % 64 == 0
    model, before = schema.Model.GetRootAs(new, 0), schema.Model.GetRootAs(old, 0)
    assert model.BuffersLength() == before.BuffersLength() + 1
    entry = model.Metadata(model.MetadataLength() - 1)
    assert entry.Name() == name.encode()
    held = model.Buffers(entry.Buffer()).DataAsNumpy()
    assert (b"" if isinstance(held, int) else bytes(held)) == content
    for index in range(before.BuffersLength()):
        mine, theirs = model.Buffers(index), before.Buffers(index)
        assert np.array_equal(mine.DataAsNumpy(), theirs.DataAsNumpy())
    assert model.Version() == before.Version()
    assert flatbuffers.util.BufferHasIdentifier(new, 0, b"TFL3")
