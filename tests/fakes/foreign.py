"""Small wake words of other projects, made here: same shapes and operators, own weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper, save_model

STEP = (1, 3, 40)
MEMORY = (1, 2, 40)


def write_micro(folder: Path, begin: float = 0.0, swap: bool = False, **settings: Any) -> Path:
    """A microWakeWord: its manifest, and a float model that keeps two frames in a variable.

    Its score is the sigmoid of the mean over the two frames and the three new ones.

    Args:
        folder: to write to.
        begin: what the variable holds at first.
        swap: write the variable before it is read.
        settings: of the manifest, in place of the usual ones.
    """
    (folder / "robin.tflite").write_bytes(_variable_model(begin, swap))
    micro = {
        "probability_cutoff": 0.6,
        "sliding_window_size": 4,
        "feature_step_size": 10,
        "tensor_arena_size": 20000,
    }
    described = {
        "type": "micro",
        "wake_word": "Hey Robin",
        "model": "robin.tflite",
        "version": 2,
        "micro": {name: settings.pop(name, value) for name, value in micro.items()},
    }
    path = folder / "robin.json"
    path.write_text(json.dumps(described | settings))
    return path


def _variable_model(begin: float, swap: bool) -> bytes:
    graph, first = _Graph(), _Graph()
    kinds = schema.BuiltinOperator
    taken, seen = graph.tensor(STEP), graph.tensor((1, 5, 40))
    handle = graph.tensor((), schema.TensorType.RESOURCE)
    before, after = graph.tensor(MEMORY), graph.tensor(MEMORY)
    mean, score = graph.tensor((1, 1)), graph.tensor((1, 1))
    start, size = graph.constant(np.int32([0, 3, 0])), graph.constant(np.int32(MEMORY))
    axes = graph.constant(np.int32([1, 2]))
    options = schema.BuiltinOptions
    once = schema.CallOnceOptionsT()
    once.initSubgraphIndex = 1
    graph.add(kinds.CALL_ONCE, [], [], options.CallOnceOptions, once)
    graph.add(kinds.VAR_HANDLE, [], [handle], options.VarHandleOptions, _shared())
    read = (kinds.READ_VARIABLE, [handle], [before])
    joined = schema.ConcatenationOptionsT()
    joined.axis = 1
    steps = [
        (kinds.CONCATENATION, [before, taken], [seen], options.ConcatenationOptions, joined),
        (kinds.SLICE, [seen, start, size], [after]),
        (kinds.ASSIGN_VARIABLE, [handle, after], []),
    ]
    for step in [steps[-1], read, *steps[:2]] if swap else [read, *steps]:
        graph.add(*step)
    graph.add(kinds.MEAN, [seen, axes], [mean], options.ReducerOptions, schema.ReducerOptionsT())
    graph.add(kinds.LOGISTIC, [mean], [score])
    handle = first.tensor((), schema.TensorType.RESOURCE)
    value = first.constant(np.full(MEMORY, begin, np.float32))
    first.add(kinds.VAR_HANDLE, [], [handle], options.VarHandleOptions, _shared())
    first.add(kinds.ASSIGN_VARIABLE, [handle, value], [])
    return _model([(graph, [taken], [score]), (first, [], [])])


def _shared() -> Any:
    options = schema.VarHandleOptionsT()
    options.sharedName = "stream/states"
    options.container = ""
    return options


class _Graph:
    """A subgraph in the making."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.operators: list[tuple[int, Any]] = []
        self.constants: dict[int, np.ndarray] = {}

    def tensor(self, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32) -> int:
        found = schema.TensorT()
        found.shape, found.type, found.buffer = list(shape), kind, 0
        found.name = f"tensor_{len(self.tensors)}"
        self.tensors.append(found)
        return len(self.tensors) - 1

    def constant(self, value: np.ndarray) -> int:
        whole = value.dtype == np.int32
        kind = schema.TensorType.INT32 if whole else schema.TensorType.FLOAT32
        index = self.tensor(value.shape, kind)
        self.constants[index] = value
        return index

    def add(
        self, kind: int, taken: list[int], given: list[int], choice: int = 0, options: Any = None
    ) -> None:
        found = schema.OperatorT()
        found.inputs, found.outputs = taken, given
        found.builtinOptionsType, found.builtinOptions = choice, options
        self.operators.append((kind, found))


def _model(graphs: list[tuple[_Graph, list[int], list[int]]]) -> bytes:
    model = schema.ModelT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], []
    kinds = sorted({kind for graph, _, _ in graphs for kind, _ in graph.operators})
    model.operatorCodes = []
    for kind in kinds:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), 1
        model.operatorCodes.append(code)
    for graph, taken, given in graphs:
        for index, value in graph.constants.items():
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            model.buffers.append(buffer)
            graph.tensors[index].buffer = len(model.buffers) - 1
        found = schema.SubGraphT()
        found.tensors, found.inputs, found.outputs = graph.tensors, taken, given
        found.operators = []
        for kind, operator in graph.operators:
            operator.opcodeIndex = kinds.index(kind)
            found.operators.append(operator)
        model.subgraphs.append(found)
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_openwake(
    folder: Path, windows: int = 16, scores: int = 1, convolutions: bool = False
) -> Path:
    """An openWakeWord: ``melspectrogram.onnx``, ``embedding_model.onnx`` and a word's file.

    Args:
        folder: to write to.
        windows: embeddings that the word looks at.
        scores: that it gives.
        convolutions: the embedding is a chain of them, as the published one; else one product.
    """
    chance = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        found = chance.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        # What is as loud everywhere says nothing, so that answers do not drown in the level.
        found -= found.mean(tuple(range(len(shape) - 1)))
        return found.astype(np.float32)

    node = helper.make_node
    _write_mels(folder / "melspectrogram.onnx")
    if convolutions:
        _write_chain(folder / "embedding_model.onnx", weights)
    else:
        _write_product(folder / "embedding_model.onnx", weights)
    word = folder / "hey_robin_v0.1.onnx"
    _save(
        word,
        [
            node("Flatten", ["embeddings"], ["row"]),
            node("Gemm", ["row", "mix"], ["sum"]),
            node("Sigmoid", ["sum"], ["score"]),
        ],
        ("embeddings", [1, windows, 96]),
        ("score", [1, scores]),
        {"mix": 4 * weights(windows * 96, scores)},
    )
    return word


def _write_mels(path: Path) -> None:
    """Decibels in the published file's 32 bands, none more than 80 below the loudest."""
    node, turns = helper.make_node, np.outer(np.arange(257), np.arange(512)) / 512
    window = np.pad(0.5 - 0.5 * np.cos(np.arange(400) * np.pi / 200), 56)
    _save(
        path,
        [
            node("Unsqueeze", ["input", "one"], ["row"]),
            *(node("Conv", ["row", part], [f"{part}_sum"], strides=[160]) for part in "ri"),
            *(node("Mul", [f"{part}_sum"] * 2, [f"{part}_square"]) for part in "ri"),
            node("Add", ["r_square", "i_square"], ["power"]),
            node("Transpose", ["power"], ["turned"], perm=[0, 2, 1]),
            node("MatMul", ["turned", "bands"], ["energy"]),
            node("Max", ["energy", "least"], ["heard"]),
            node("Log", ["heard"], ["nepers"]),
            node("Mul", ["nepers", "decibel"], ["decibels"]),
            node("ReduceMax", ["decibels"], ["loudest"], keepdims=0),
            node("Sub", ["loudest", "range"], ["bound"]),
            node("Max", ["decibels", "bound"], ["bounded"]),
            node("Unsqueeze", ["bounded", "one"], ["output"]),
        ],
        ("input", ["batch", "samples"]),
        ("output", ["batch", 1, "time", 32]),
        {
            "one": np.array([1], np.int64),
            "r": (window * np.cos(2 * np.pi * turns)).astype(np.float32)[:, None],
            "i": (window * -np.sin(2 * np.pi * turns)).astype(np.float32)[:, None],
            "bands": _slaney_bands().astype(np.float32),
            "least": np.array(1e-10, np.float32),
            "decibel": np.array(10 / np.log(10), np.float32),
            "range": np.array(80, np.float32),
        },
    )


def _slaney_bands() -> np.ndarray:
    """Triangles (257, 32) of equal area from 60 to 3800 Hz, as librosa spaces them."""
    mel = np.linspace(60 * 3 / 200, 15 + 27 * np.log(3.8) / np.log(6.4), 34)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    hertz = np.arange(257)[:, None] * 31.25
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def _write_product(path: Path, weights: Callable[..., np.ndarray]) -> None:
    node = helper.make_node
    _save(
        path,
        [
            node("Reshape", ["input_1", "flat"], ["row"]),
            node("MatMul", ["row", "mix"], ["mixed"]),
            node("Tanh", ["mixed"], ["bounded"]),
            node("Reshape", ["bounded", "shape"], ["conv2d_19"]),
        ],
        ("input_1", ["batch", 76, 32, 1]),
        ("conv2d_19", ["batch", 1, 1, 96]),
        {
            "flat": np.array([-1, 76 * 32], np.int64),
            "mix": weights(76 * 32, 96),
            "shape": np.array([-1, 1, 1, 96], np.int64),
        },
    )


def _write_chain(path: Path, weights: Callable[..., np.ndarray]) -> None:
    """76 frames become 72, 36, 32, 16, 12, 6 and one; 8 new ones become 4, 2 and one."""
    node, value, nodes = helper.make_node, "picture", []
    sizes = [(8, 1, 5, 3), (8, 8, 5, 3), (8, 8, 5, 3), (96, 8, 6, 4)]
    for at, size in enumerate(sizes):
        pads = {"pads": [0, 1, 0, 1]} if size[3] == 3 else {}
        nodes.append(node("Conv", [value, f"weight_{at}"], [f"sum_{at}"], **pads))
        value = f"sum_{at}"
        if pads:
            nodes.append(node("LeakyRelu", [value], [f"bent_{at}"], alpha=0.2))
            pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(node("Max", [f"bent_{at}", "least"], [f"bound_{at}"]))
            nodes.append(node("MaxPool", [f"bound_{at}"], [f"pooled_{at}"], **pool))
            value = f"pooled_{at}"
    _save(
        path,
        [
            node("Reshape", ["input_1", "image"], ["picture"]),
            *nodes,
            node("Reshape", [value, "shape"], ["conv2d_19"]),
        ],
        ("input_1", ["batch", 76, 32, 1]),
        ("conv2d_19", ["batch", 1, 1, 96]),
        {
            "image": np.array([-1, 1, 76, 32], np.int64),
            "shape": np.array([-1, 1, 1, 96], np.int64),
            "least": np.array(-0.4, np.float32),
            **{f"weight_{at}": weights(*size[::-1]).T for at, size in enumerate(sizes)},
        },
    )


def _save(
    path: Path,
    nodes: list[Any],
    taken: tuple[str, list[Any]],
    given: tuple[str, list[Any]],
    constants: dict[str, np.ndarray],
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])],
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
