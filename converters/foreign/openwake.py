"""openWakeWord: three ONNX files in a row become one streaming network.

Every 80 ms the first makes eight frames of 32 mel bands from 110 ms of sound, the second an
embedding of 96 numbers from the last 76 frames, the third a score from the last embeddings
(https://github.com/dscripka/openWakeWord, ``AudioFeatures._streaming_features``). What each looks
back on becomes a state; inside of the second too, where it is the usual chain of convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from msgspec import Meta
from onnx import TensorProto, helper, numpy_helper, version_converter

from converters.foreign.caching import Chain, chained
from converters.foreign.listens import Listens
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo, WakeWord
from edge_sdk.errors import ConversionError

MELS: Final = "melspectrogram.onnx"
EMBEDDING: Final = "embedding_model.onnx"
FRAME: Final = 80
FRAMES: Final = 16
STEP_SAMPLES, BEFORE = FRAME * FRAMES, 480
BANDS, NEW, SEEN, WIDTH = 32, 8, 76, 96
STEP_S: Final = STEP_SAMPLES / 16000
OPSET, _IR = 14, 8
_NOTES: Final = "edge_sdk.wakeword"
_MOST_BYTES: Final = 256 * 1024**2
FULL_SCALE: Final = 2.0**15
"""The files take samples of 16 bits as they are."""


class Notes(msgspec.Struct, frozen=True):
    """How to listen, as training notes it in a word's file; openWakeWord's own files do not say."""

    phrase: str = ""
    cutoff: Annotated[float, Meta(gt=0, le=1)] = 0.5
    window_steps: Annotated[int, Meta(ge=1, le=1000)] = 1
    refractory_s: Annotated[float, Meta(ge=0, le=60)] = 2.0


def note(model: onnx.ModelProto, notes: Notes) -> None:
    """Write into a word's file how to listen."""
    helper.set_model_props(model, {_NOTES: msgspec.json.encode(notes).decode()})


def _notes(path: Path, head: onnx.ModelProto) -> Notes:
    text = {item.key: item.value for item in head.metadata_props}.get(_NOTES, "{}")
    try:
        return msgspec.json.decode(text, type=Notes)
    except msgspec.MsgspecError as error:
        raise _bad(path, f"notes badly how to listen: {error}") from error


def read_openwake(head: Path, folder: Path, labels: tuple[str, ...] = ()) -> Listens:
    """An openWakeWord from the file of its word and the two that all words share.

    Args:
        head: the word's ``.onnx``.
        folder: where ``melspectrogram.onnx`` and ``embedding_model.onnx`` lie.
        labels: of its scores; the file's name by default.

    Raises:
        ConversionError: ``conversion.bad-wakeword``.
    """
    mels, embedding, last = (load_part(path) for path in (folder / MELS, folder / EMBEDDING, head))
    windows, scores = _sizes(head, last)
    notes = _notes(head, last)
    labels = labels or (notes.phrase or _title(head),)
    if len(labels) != scores:
        raise _bad(head, f"gives {scores} scores, and there are {len(labels)} labels (--labels)")
    words = tuple(
        WakeWord(
            label=label,
            output=at,
            cutoff=notes.cutoff,
            window_steps=notes.window_steps,
            refractory_s=notes.refractory_s,
        )
        for at, label in enumerate(labels)
    )
    sound = SoundInfo(
        features=FeatureSpec(kind="samples", window_samples=FRAME, hop_samples=FRAME, bands=FRAME),
        frames_per_step=FRAMES,
        order="frames-bands",
        labels=labels,
        activation="none",
        words=words,
    )
    try:
        model, states = _joined(mels, embedding, last, windows, scores)
    except (onnx.checker.ValidationError, ValueError, KeyError, RuntimeError) as error:
        raise _bad(head, f"does not follow on the other two: {str(error)[:160]}") from error
    pairs = tuple((at, at) for at in range(1, 1 + states))
    return Listens(head.stem, "onnx", model.SerializeToString(), pairs, sound)


def _joined(
    mels: onnx.ModelProto,
    embedding: onnx.ModelProto,
    head: onnx.ModelProto,
    windows: int,
    scores: int,
) -> tuple[onnx.ModelProto, int]:
    """The network, and how many states it has."""
    named = ((mels, "m/"), (embedding, "e/"), (head, "h/"))
    sound, picture, vector = (_renamed(model.graph, prefix) for model, prefix in named)
    chain = chained(picture, SEEN, NEW, BANDS)
    looks = _look_back(picture) if chain is None else _look_once(picture, chain)
    count = 2 + len(looks.memories)
    node = helper.make_node
    nodes = [
        node("Reshape", ["input_0", "flat"], ["flattened"]),
        node("Mul", ["flattened", "scale"], ["scaled"]),
        *_remembering("scaled", "input_1", sound.input[0].name, "samples", "output_1"),
        *sound.node,
        node("Reshape", [sound.output[0].name, "rows"], ["decibels"]),
        node("Div", ["decibels", "ten"], ["tenths"]),
        node("Add", ["tenths", "two"], ["new_frames"]),
        *looks.nodes,
        node("Reshape", [picture.output[0].name, "one"], ["new_embedding"]),
        *_remembering(
            "new_embedding", f"input_{count}", vector.input[0].name, "embeddings", f"output_{count}"
        ),
        *vector.node,
        node("Reshape", [vector.output[0].name, "answer"], ["output_0"]),
    ]
    constants: dict[str, np.float32 | list[int]] = {
        "scale": np.float32(FULL_SCALE),
        "ten": np.float32(10),
        "two": np.float32(2),
        "flat": [1, STEP_SAMPLES],
        "rows": [1, NEW, BANDS],
        "one": [1, 1, WIDTH],
        "end": [2**31 - 1],
        "second": [1],
        "samples": [-BEFORE],
        "embeddings": [1 - windows],
        "answer": [1, scores],
    }
    kept = constants_of(constants | looks.constants)
    states = [(1, BEFORE), *looks.memories, (1, windows - 1, WIDTH)]
    graph = helper.make_graph(
        nodes,
        "openwakeword",
        _infos("input", [(1, FRAMES, FRAME), *states]),
        _infos("output", [(1, scores), *states]),
        [*kept, *sound.initializer, *picture.initializer, *vector.initializer],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    onnx.checker.check_model(model)
    return model, len(states)


def constants_of(values: Mapping[str, np.float32 | list[int]]) -> list[onnx.TensorProto]:
    """Numbers by the names that nodes call them."""
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _look_back(picture: onnx.GraphProto) -> Chain:
    """The embedding on all frames that it sees; what it does is not known."""
    node = helper.make_node
    return Chain(
        [
            *_remembering("new_frames", "input_2", "seen_frames", "frames", "output_2"),
            node("Reshape", ["seen_frames", "image"], [picture.input[0].name]),
            *picture.node,
        ],
        {"image": [1, SEEN, BANDS, 1], "frames": [NEW - SEEN]},
        [(1, SEEN - NEW, BANDS)],
    )


def _look_once(picture: onnx.GraphProto, chain: Chain) -> Chain:
    """The embedding on new frames."""
    node = helper.make_node("Reshape", ["new_frames", "image"], [picture.input[0].name])
    return Chain(
        [node, *chain.nodes], {"image": [1, 1, NEW, BANDS]} | chain.constants, chain.memories
    )


def _remembering(new: str, before: str, both: str, start: str, after: str) -> list[Any]:
    """What was before and what is new in a row, and the end of it for the next step."""
    return [
        helper.make_node("Concat", [before, new], [both], axis=1),
        helper.make_node("Slice", [both, start, "end", "second"], [after]),
    ]


def _renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """The graph with a prefix to every name, those inside of branches included, in place."""

    def named(names: Any) -> None:
        names[:] = [prefix + name if name else "" for name in names]

    for info in (*graph.input, *graph.output, *graph.initializer):
        info.name = prefix + info.name
    for node in graph.node:
        named(node.input)
        named(node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _renamed(attribute.g, prefix)
    del graph.value_info[:]
    return graph


def _infos(name: str, shapes: list[tuple[int, ...]]) -> list[Any]:
    make = helper.make_tensor_value_info
    return [make(f"{name}_{at}", TensorProto.FLOAT, shape) for at, shape in enumerate(shapes)]


def load_part(path: Path) -> onnx.ModelProto:
    """One of the three files, in the version of operators that the others are brought to.

    Raises:
        ConversionError: ``conversion.bad-wakeword``.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
        if len(model.graph.input) != 1 or len(model.graph.output) != 1:
            raise ValueError("it must have one input and one output")
        found = version_converter.convert_version(model, OPSET)
        helper.set_model_props(found, {item.key: item.value for item in model.metadata_props})
        return found
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError, RuntimeError) as error:
        raise _bad(path, f"is no ONNX file of openWakeWord: {str(error)[:160]}") from error


def _sizes(path: Path, head: onnx.ModelProto) -> tuple[int, int]:
    """Embeddings that the word's file looks at, and scores that it gives."""
    taken, given = (
        [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (head.graph.input[0], head.graph.output[0])
    )
    if len(taken) != 3 or taken[2] != WIDTH or not 2 <= taken[1] <= 200 or len(given) != 2:
        raise _bad(path, f"takes {taken} and gives {given}, not embeddings of {WIDTH} numbers")
    return taken[1], given[1]


def _title(path: Path) -> str:
    """``hey_jarvis_v0.1`` is "hey jarvis"."""
    return path.stem.partition("_v")[0].replace("_", " ")


def _bad(path: Path, what: str) -> ConversionError:
    return ConversionError(
        "bad-wakeword",
        f"{path} {what}.",
        f"Give the word's .onnx, and the folder with {MELS} and {EMBEDDING} (docs/import.md).",
    )
