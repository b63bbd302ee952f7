"""What travels whole and what as a recipe, and what each device fetches of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.needs import choose_blobs, needed_refs
from edge_sdk.bundle.release import create_release, open_release
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact, Derivation, Manifest, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint, TensorSpec
from edge_sdk.errors import EdgeError

WIDTHS = {1.0: 64, 0.75: 48, 0.5: 32, 0.25: 16}
SIDE_PX = 16


def network(width: int, *, int8: bool) -> bytes:
    """Three convolutions; a narrow one's weights are a prefix of a wide one's.

    In int8 every width has scales of its own, as if it had been quantized alone.
    """
    rng = np.random.default_rng(1)
    shapes = [(64, 3, 3, 3), (64, 64, 3, 3), (64, 64, 3, 3)]
    nodes, weights, name = [], [], "x"
    for layer, shape in enumerate(shapes):
        kernel = rng.normal(size=shape).astype(np.float32)[:width, : 3 if layer == 0 else width]
        source = f"w{layer}"
        if int8:
            scale = (np.abs(kernel).max((1, 2, 3)) / 127).astype(np.float32)
            kernel = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
            weights.append(numpy_helper.from_array(scale, f"s{layer}"))
            weights.append(numpy_helper.from_array(np.zeros(width, np.int8), f"z{layer}"))
            inputs = [f"w{layer}", f"s{layer}", f"z{layer}"]
            source = f"d{layer}"
            nodes.append(helper.make_node("DequantizeLinear", inputs, [source], axis=0))
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, source], [f"y{layer}"], pads=[1] * 4))
        name = f"y{layer}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, (1, 3, SIDE_PX, SIDE_PX))],
        [info(name, TensorProto.FLOAT, (1, width, SIDE_PX, SIDE_PX))],
        weights,
    )
    imports = [helper.make_opsetid("", 17)]
    return bytes(
        onnx.helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    )


def vectors(width: int) -> bytes:
    """Golden vectors: the same inputs for every width, outputs of its own."""
    packed = io.BytesIO()
    inputs = np.random.default_rng(2).normal(size=(8, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    np.savez(packed, input=inputs, output=np.full((8, 10), width, np.float32))
    return packed.getvalue()


def write_conversion(folder: Path, *, int8: bool, ladders: dict[str, list[float]]) -> Path:
    """A finished conversion of the four widths."""
    folder.mkdir()
    files, artifacts = {}, {}
    for width, channels in WIDTHS.items():
        digests = []
        for name, data in (
            (f"{width}.onnx", network(channels, int8=int8)),
            (f"{width}.npz", vectors(channels)),
        ):
            (folder / name).write_bytes(data)
            digests.append(blob_ref(data).digest)
            files[digests[-1]] = name
        artifacts[width] = artifact_of(*digests)
    document = Conversion(
        created="2026-01-01T00:00:00+00:00",
        task=TaskInfo(
            name="widths",
            kind="generic",
            labels=(),
            preprocess=Preprocess(color="rgb", mean=(0.0,), std=(1.0,)),
            reference_accuracy=1.0,
        ),
        artifacts={each.digest: each for each in artifacts.values()},
        ladders={
            profile: tuple(point_of(width, artifacts[width].digest) for width in widths)
            for profile, widths in ladders.items()
        },
        files=files,
    )
    (folder / "conversion.json").write_bytes(encode(document))
    return folder


def artifact_of(digest: str, golden: str) -> Artifact:
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 3, SIDE_PX, SIDE_PX), layout="NCHW")
    return Artifact(
        digest=digest,
        format="onnx",
        runtime="onnxruntime",
        scheme="fp32",
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        inputs=(spec,),
        outputs=(spec,),
        golden=golden,
        tolerance={"onnxruntime": 0.1},
    )


def point_of(width: float, digest: str) -> OperatingPoint:
    return OperatingPoint(
        id=f"w{width:.2f}",
        artifact=digest,
        runtime="onnxruntime",
        scheme="fp32",
        channel_width=width,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        threads=1,
        accuracy=width,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=1.0,
    )


def fetched(manifest: Manifest, profile: str) -> int:
    """Bytes a device of this profile fetches, and keeps on its flash."""
    return sum(ref.size_bytes for ref in needed_refs(manifest, manifest.ladders[profile]))


@pytest.mark.parametrize("int8", [False, True], ids=["fp32", "int8"])
def test_four_widths_cost_little_more_than_the_widest(tmp_path: Path, int8: bool) -> None:
    """Bar 2: at most 1.10 times the widest alone, over the wire and on flash."""
    ladders = {"all": list(WIDTHS), "widest": [1.0]}
    source = write_conversion(tmp_path / "c", int8=int8, ladders=ladders)
    manifest = create_release(source, tmp_path / "r", name="n", version="1")
    share = fetched(manifest, "all") / fetched(manifest, "widest")
    whole = create_release(source, tmp_path / "w", name="n", version="1", whole=True)
    assert whole.derived == {}
    assert fetched(whole, "all") > 1.7 * fetched(whole, "widest")
    assert 1.0 < share <= 1.10
    folder = sum(path.stat().st_size for path in (tmp_path / "r" / "blobs").iterdir())
    assert folder <= 1.10 * fetched(manifest, "widest")
    assert set(manifest.artifacts) == set(whole.artifacts)
    open_release(tmp_path / "r")


def test_who_needs_one_narrow_point_fetches_just_that(tmp_path: Path) -> None:
    ladders = {"big": [1.0, 0.5], "small": [0.25], "middle": [0.5, 0.25]}
    source = write_conversion(tmp_path / "c", int8=False, ladders=ladders)
    manifest = create_release(source, tmp_path / "r", name="n", version="1")
    sizes = {width: len(network(channels, int8=False)) for width, channels in WIDTHS.items()}
    golden = len(vectors(64))
    assert fetched(manifest, "small") == sizes[0.25] + golden
    assert fetched(manifest, "middle") < sizes[0.5] + sizes[0.25] + 1.2 * golden
    assert fetched(manifest, "big") < sizes[1.0] + golden + 5000
    open_release(tmp_path / "r")


def test_a_release_whose_recipe_was_exchanged_is_not_signed_or_shown(tmp_path: Path) -> None:
    source = write_conversion(tmp_path / "c", int8=False, ladders={"all": list(WIDTHS)})
    manifest = create_release(source, tmp_path / "r", name="n", version="1")
    derived = {
        digest: manifest.derived[digest]
        for digest in manifest.artifacts
        if digest in manifest.derived
    }
    (one, how), (_, other), *_ = derived.items()
    swapped = Derivation(base=how.base, recipe=other.recipe, size_bytes=how.size_bytes)
    wrong = replace(manifest, derived={**manifest.derived, one: swapped})
    (tmp_path / "r" / "manifest.json").write_bytes(encode(wrong))
    with pytest.raises(EdgeError, match=r"contract\.bad-recipe"):
        open_release(tmp_path / "r")


names = st.sampled_from([f"{letter}" for letter in "abcdefgh"])


@given(
    sizes=st.fixed_dictionaries({name: st.integers(1, 1000) for name in "abcdefgh"}),
    recipes=st.dictionaries(names, st.tuples(names, st.integers(1, 1000)), max_size=7),
    absent=st.sets(names),
    wanted=st.lists(names, unique=True, min_size=1),
)
def test_every_choice_is_complete_and_never_dearer_than_all_whole(
    sizes: dict[str, int], recipes: dict[str, tuple[str, int]], absent: set[str], wanted: list[str]
) -> None:
    bases = {base for base, _ in recipes.values()}
    derived = {
        name: Derivation(base=base, recipe=f"r{name}", size_bytes=sizes[name])
        for name, (base, _) in recipes.items()
        if name not in bases
    }
    there = {name: size for name, size in sizes.items() if name not in absent & set(derived)}
    there |= {f"r{name}": recipes[name][1] for name in derived}
    chosen = choose_blobs(wanted, there, derived)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(there)
    for name in wanted:
        how = derived.get(name)
        assert name in chosen or (how is not None and {how.base, how.recipe} <= set(chosen))
    if all(name in there for name in wanted):
        assert sum(there[name] for name in chosen) <= sum(there[name] for name in wanted)
