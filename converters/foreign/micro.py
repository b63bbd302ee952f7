"""microWakeWord: a manifest and a TFLite file with variables become a streaming release.

The manifest is version 2 of https://esphome.io/components/micro_wake_word, as its models are
published; the features are those of TensorFlow Lite Micro's front end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from converters.foreign.listens import Listens
from converters.foreign.variables import without_variables
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo, WakeWord
from edge_sdk.errors import ConversionError

MAX_MANIFEST_BYTES: Final = 64 * 1024
FEATURES: Final = FeatureSpec(kind="micro", window_samples=480, hop_samples=160, bands=40)
STEP_MS: Final = 10
REFRACTORY_S: Final = 2.0


class _Settings(msgspec.Struct):
    probability_cutoff: Annotated[float, Meta(gt=0, le=1)]
    sliding_window_size: Annotated[int, Meta(ge=1, le=1000)]
    feature_step_size: int = STEP_MS
    tensor_arena_size: int = 0


class _Manifest(msgspec.Struct):
    type: str
    wake_word: Annotated[str, Meta(min_length=1, max_length=200)]
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    version: int
    micro: _Settings


def read_micro(manifest: Path) -> Listens:
    """A microWakeWord from its manifest.

    Args:
        manifest: ``.json``; the model lies beside it, under the name that it gives.

    Raises:
        ConversionError: ``conversion.bad-wakeword``, and those of
            :func:`converters.foreign.variables.without_variables`.
    """
    described = _read(manifest)
    steps = _steps(manifest.parent / described.model, described.micro)
    rewritten = without_variables(manifest.parent / described.model)
    word = WakeWord(
        label=described.wake_word,
        cutoff=described.micro.probability_cutoff,
        window_steps=described.micro.sliding_window_size,
        refractory_s=REFRACTORY_S,
    )
    sound = SoundInfo(
        features=FEATURES,
        frames_per_step=steps,
        order="frames-bands",
        labels=(described.wake_word,),
        activation="none",
        words=(word,),
    )
    return Listens(manifest.stem, "tflite", rewritten.data, rewritten.states, sound)


def _read(path: Path) -> _Manifest:
    try:
        data = path.read_bytes()
        if len(data) > MAX_MANIFEST_BYTES:
            raise msgspec.ValidationError("it is far too large")
        found = msgspec.json.decode(data, type=_Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(path, f"cannot be read: {error}") from error
    if found.type != "micro" or found.version != 2:
        raise _bad(path, f"is of type {found.type!r}, version {found.version}; 'micro', 2 is known")
    if found.micro.feature_step_size != STEP_MS:
        raise _bad(path, f"wants features every {found.micro.feature_step_size} ms")
    if Path(found.model).name != found.model or not found.model.endswith(".tflite"):
        raise _bad(path, f"names {found.model!r} as its model, which is no .tflite beside it")
    return found


def _steps(model: Path, settings: _Settings) -> int:
    """Frames that one step of the model takes."""
    from converters.inspect import inspect_model

    shape = inspect_model(model).inputs[0].shape
    if len(shape) != 3 or shape[0] != 1 or shape[2] != FEATURES.bands:
        raise _bad(model, f"takes {list(shape)}, not frames of {FEATURES.bands} features")
    return shape[1]


def _bad(path: Path, what: str) -> ConversionError:
    return ConversionError(
        "bad-wakeword",
        f"{path} {what}.",
        "Give the .json of a microWakeWord with its .tflite beside it, or convert the .tflite by "
        "hand (docs/import.md).",
    )
