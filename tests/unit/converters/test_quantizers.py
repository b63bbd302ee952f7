"""Every scheme in both formats on small networks: what is inside, and how far it is off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.inspect import inspect_model, problems_with
from converters.layers import layers_of
from converters.measure import sqnr_db
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.schemes import SUPPORTED, builds, parse_scheme
from converters.settings import Settings
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite
from converters.wiring import answer, as_exported, feeds
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine

pytestmark = [
    # torch's exporters use what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),
    # Calibration is the case that keeping all tensors is meant for.
    pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all:UserWarning"),
]

QUANTIZE = {"onnx": quantize_onnx, "tflite": quantize_tflite}
CASES = [
    (kind, scheme)
    for kind in ("onnx", "tflite")
    for scheme in SUPPORTED
    if scheme != "fp32" and builds(scheme, kind)
]
LEAST_DB = {
    "wfp16": 60,
    "mixed_fp16_fp32": 55,
    "weight_only_wi8_afp32": 38,
    "dynamic_wi8_afp32": 33,
    "static_wi8_ai16": 38,
}


class Attention(nn.Module):
    """Patches, one attention block with LayerNorm, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 4, 4), nn.BatchNorm2d(16), nn.ReLU())
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.proj = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(self.norm(tokens)).chunk(3, -1)
        weights = torch.softmax(query @ key.transpose(1, 2) * 0.25, -1)
        return self.head((tokens + self.proj(weights @ value)).mean(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """The attention network in both formats, samples, and PyTorch's answers."""
    folder = tmp_path_factory.mktemp("attention")
    module = Attention().eval()
    export_onnx(module, torch.zeros(1, 1, 24, 24), folder / "float.onnx")
    export_tflite(module, torch.zeros(1, 1, 24, 24), folder / "float.tflite")
    samples = np.random.default_rng(0).normal(size=(24, 1, 24, 24)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(samples)).numpy()
    return folder, samples, expected


def run(path: Path, samples: np.ndarray) -> np.ndarray:
    kind = path.suffix[1:]
    engine = open_engine(path, format=kind)
    inputs = [as_exported(spec, kind) for spec in engine.inputs]
    outputs = [as_exported(spec, kind) for spec in engine.outputs]
    found = [answer(engine.run(arrays), outputs) for arrays in feeds(samples, inputs)]
    engine.close()
    return np.concatenate(found)


@pytest.mark.parametrize(("kind", "scheme"), CASES)
def test_each_scheme_is_what_it_claims_and_close(exported, kind, scheme, tmp_path) -> None:
    folder, samples, expected = exported
    target = tmp_path / f"{scheme}.{kind}"
    keep = ("norm", "stem.0") if scheme == "mixed_static_wi8_ai8_fp32" else ()
    settings = Settings(keep=keep)
    QUANTIZE[kind](folder / f"float.{kind}", scheme, samples, target, settings)
    facts = inspect_model(target)
    assert problems_with(facts, parse_scheme(scheme)) == []
    plain = [name for name in SUPPORTED if not parse_scheme(name).mixed and name != scheme]
    assert all(
        problems_with(facts, parse_scheme(name)) for name in plain if builds(name, kind)
    ) or ("mixed" in scheme)
    assert sqnr_db(run(target, samples), expected) > LEAST_DB.get(scheme, 30)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("chosen", ["linear", "convolution"])
def test_a_mixed_file_computes_chosen_kinds_in_integers(exported, kind, chosen, tmp_path) -> None:
    folder, samples, expected = exported
    scheme, target = "mixed_static_wi8_ai8_fp32", tmp_path / f"mixed.{kind}"
    settings = Settings(integers=(chosen,))
    QUANTIZE[kind](folder / f"float.{kind}", scheme, samples, target, settings)
    facts = inspect_model(target)
    stored = {("CONV" in x.op.upper(), x.weight_dtype) for x in facts.layers if x.weight_elements}
    convolves = chosen == "convolution"
    assert (convolves, "int8") in stored and (not convolves, "float32") in stored
    assert (not convolves, "int8") not in stored
    assert sqnr_db(run(target, samples), expected) > 30


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_one_scale_per_tensor_loses_small_channels(kind, tmp_path) -> None:
    """16-bit activations, so that the weights' own rounding is what is seen."""
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False)).eval()
    with torch.no_grad():
        module[0].weight[:4] *= 0.02
    source = tmp_path / f"float.{kind}"
    {"onnx": export_onnx, "tflite": export_tflite}[kind](module, torch.zeros(1, 1, 12, 12), source)
    samples = np.random.default_rng(0).normal(size=(16, 1, 12, 12)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(samples)).numpy()
    found = {}
    for granularity in ("channel", "tensor"):
        target = tmp_path / f"{granularity}.{kind}"
        settings = Settings(granularity=granularity)
        QUANTIZE[kind](source, "static_wi8_ai16", samples, target, settings)
        found[granularity] = sqnr_db(run(target, samples), expected, widths=[100] * 8)
        assert problems_with(inspect_model(target), parse_scheme("static_wi8_ai16")) == []
    assert found["channel"] > found["tensor"] + 10


def test_half_precision_attention_keeps_its_normalisation(exported, tmp_path) -> None:
    """The seed case: attention in fp16, LayerNorm and softmax in fp32."""
    import onnx

    folder, samples, _ = exported
    target = tmp_path / "half.onnx"
    quantize_onnx(folder / "float.onnx", "mixed_fp16_fp32", samples, target)
    graph = onnx.shape_inference.infer_shapes(onnx.load(target)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds = {
        op: {types[name] for node in graph.node if node.op_type == op for name in node.input}
        for op in ("LayerNormalization", "Softmax", "MatMul")
    }
    assert kinds["LayerNormalization"] == kinds["Softmax"] == {onnx.TensorProto.FLOAT}
    assert kinds["MatMul"] == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_layers_carry_the_names_of_the_module(exported, kind) -> None:
    names = [layer.name for layer in layers_of(exported[0] / f"float.{kind}")]
    assert {"stem.0", "norm", "qkv", "proj"} <= set(names)
    assert len(names) == len(set(names))
    assert any(name.upper().startswith("SOFTMAX") for name in names)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_quantizing_a_single_layer_leaves_the_others_alone(exported, kind, tmp_path) -> None:
    folder, samples, _ = exported
    target = tmp_path / f"one.{kind}"
    QUANTIZE[kind](
        folder / f"float.{kind}", "static_wi8_ai8", samples, target, Settings(only=("proj",))
    )
    dtypes = [layer.weight_dtype for layer in inspect_model(target).layers]
    assert dtypes.count("int8") == 1


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_mixed_claim_needs_both_kinds_or_the_base(exported, kind) -> None:
    facts = inspect_model(exported[0] / f"float.{kind}")
    problems = problems_with(facts, parse_scheme("mixed_static_wi8_ai8_fp32"))
    assert problems == ["no layer follows static_wi8_ai8"]


def test_weights_that_exceed_float16_are_refused_by_name(tmp_path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        module[0].weight.fill_(70_000.0)
    export_onnx(module.eval(), torch.zeros(1, 1, 4, 4), tmp_path / "big.onnx")
    for scheme in ("wfp16", "mixed_fp16_fp32"):
        with pytest.raises(ConversionError, match=r"0\.weight") as caught:
            quantize_onnx(
                tmp_path / "big.onnx", scheme, np.zeros((1, 1, 4, 4)), tmp_path / "x.onnx"
            )
        assert caught.value.code == "conversion.quantize-failed"


def test_weights_behind_the_flatbuffer_survive_metadata(tmp_path) -> None:
    """Larger int8 files name their weights by position in the file; metadata moves them."""
    from ai_edge_litert import schema_py_generated as schema

    from converters.metadata.tflite_prefix import with_metadata

    torch.manual_seed(6)
    layers = [nn.Conv2d(1, 224, 3), nn.ReLU(), nn.Conv2d(224, 224, 3), nn.Conv2d(224, 224, 3)]
    module = nn.Sequential(*layers).eval()
    source, plain, noted = (tmp_path / f"{name}.tflite" for name in ("float", "int8", "noted"))
    export_tflite(module, torch.zeros(1, 1, 8, 8), source)
    samples = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    quantize_tflite(source, "static_wi8_ai8", samples, plain)
    data = plain.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    behind = [index for index in range(model.BuffersLength()) if model.Buffers(index).Offset() > 1]
    assert behind, "the quantizer no longer writes such files"
    noted.write_bytes(with_metadata(data, "NOTE", b"x" * 1000))
    assert np.array_equal(run(noted, samples), run(plain, samples))
