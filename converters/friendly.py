"""Keeping the weights' int8 grid of an earlier release, so that an update is a smaller delta.

Quantizing a model that was trained further lets weights that hardly moved land on the next step.
Here the new weights are expressed in the steps that devices have already, and a weight within
:data:`STAY` of its old step stays there. The old scales stay, too, unless normalisation that was
folded into the weights moved whole channels: then each gets the old scale times one factor. Biases,
whose scale is the input's times the weights', follow. Whether accuracy allows it is measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.results import Measured
from converters.schemes import parse_scheme
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.delta.find import DeltaBase
from edge_sdk.recipes.parts import Part, find_parts

STAY = 1.0
"""Steps of the old grid that a weight may be off before it moves."""
NO_GAIN = 1e-3
"""Where no channel's factor is off by more than this, the old scales stay as they are."""
_LIMIT = 127
_SAME_RATIO = 1e-5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Friendly:
    """What keeping the grid did to one artifact."""

    format: str
    size: str
    scheme: str
    before_accuracy: float
    after_accuracy: float
    before_bytes: int
    """Of the delta to the file as it was quantized."""
    after_bytes: int
    """And with the old grid."""
    applied: bool


def make_friendly(
    measured: Sequence[Measured],
    earlier: Conversion,
    folder: Path,
    *,
    most_drop: float,
    verify: Callable[[list[dict[str, Any]]], list[Measured]],
    scratch: Path,
) -> tuple[list[Measured], tuple[Friendly, ...]]:
    """Keep the old grid where that makes the delta smaller and costs no more than allowed.

    Args:
        measured: verified artifacts; those that are changed are changed in place.
        earlier: the conversion that devices run.
        folder: where it lies.
        most_drop: accuracy that may be lost against the usual quantization, 0..1.
        verify: measures what was built anew.
        scratch: for the originals meanwhile.

    Returns:
        The artifacts that count now, and what was tried.
    """
    now, tried = list(measured), []
    for index, item in enumerate(measured):
        old = _counterpart(item, earlier, folder)
        kept = keep_grid(old, item.path.read_bytes(), item.path) if old is not None else None
        if old is None or kept is None:
            continue
        base = DeltaBase(old)
        before, after = (base.delta(data) for data in (item.path.read_bytes(), kept))
        if before is None or after is None:
            continue
        again = _swapped(item, kept, verify, scratch)
        applied = len(after) < len(before) and item.accuracy - again.accuracy <= most_drop
        if applied:
            now[index] = again
        else:
            _restore(item, scratch)
        accuracies = item.accuracy, again.accuracy
        sizes = len(before), len(after)
        tried.append(Friendly(item.format, item.size, item.scheme, *accuracies, *sizes, applied))
    return now, tuple(tried)


def keep_grid(old: bytes, new: bytes, path: Path) -> bytes | None:
    """The new file with the weights' scales of the old one; None when none could be kept.

    Args:
        old: the earlier file.
        new: the file as it was quantized.
        path: where the new one lies.
    """
    before, after = ({part.name: part for part in find_parts(data)} for data in (old, new))
    pairs = _scaled(path, after)
    out, ratios = bytearray(new), []
    for weight, scale in pairs:
        parts = [names.get(name) for name in (weight, scale) for names in (before, after)]
        if None in parts or after[weight].itemsize != 1 or len(after[weight].shape) < 2:
            continue
        ratio = _requantize(out, old, new, *(part for part in parts if part is not None))
        if ratio is not None:
            ratios.append(ratio)
    for bias, scale in pairs:
        if bias in after and scale in after and after[bias].itemsize == 4:
            _rescale_bias(out, new, after[bias], after[scale], ratios)
    return bytes(out) if ratios else None


def _requantize(
    out: bytearray, old: bytes, new: bytes, was: Part, now: Part, old_scale: Part, new_scale: Part
) -> tuple[Floats, Floats] | None:
    """Write a weight in its old scales; (new scales, old over new) where that was possible."""
    if was.shape != now.shape or old_scale.shape != new_scale.shape:
        return None
    channels = new_scale.shape[0]
    axis = next((axis for axis in (0, -1) if now.shape[axis] == channels), None)
    if axis is None or len(new_scale.shape) != 1:
        return None
    spread = [1] * len(now.shape)
    spread[axis] = channels
    fresh, stale = (_floats(data, part) for data, part in ((new, new_scale), (old, old_scale)))
    if not (fresh > 0).all() or not (stale > 0).all():
        return None
    values, steps_before = (
        np.frombuffer(data, np.int8, part.length, part.offset).reshape(part.shape)
        for data, part in ((new, now), (old, was))
    )
    exact = values * (fresh / stale).reshape(spread)
    gains = _gains(steps_before, exact, axis)
    stale, exact = stale * gains, exact / gains.reshape(spread)
    near = np.abs(exact - steps_before) <= STAY
    steps = np.where(near, steps_before, np.clip(np.rint(exact), -_LIMIT, _LIMIT))
    out[now.offset : now.offset + now.length] = steps.astype(np.int8).tobytes()
    out[new_scale.offset : new_scale.offset + new_scale.length] = stale.astype("<f4").tobytes()
    return fresh, stale / fresh


def _gains(before: npt.NDArray[np.int8], exact: Floats, axis: int) -> Floats:
    """One factor per channel, which folded normalisation changes as a whole; least squares."""
    old, new = (
        np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (before, exact)
    )
    old = old.astype(np.float64)
    power, product = (old * old).sum(1), (old * new).sum(1)
    usable = (power > 0) & (product > 0)
    gains = np.where(usable, product / np.where(usable, power, 1), 1.0)
    return np.ones_like(gains) if (np.abs(gains - 1) < NO_GAIN).all() else gains


def _rescale_bias(
    out: bytearray, new: bytes, bias: Part, scale: Part, ratios: Sequence[tuple[Floats, Floats]]
) -> None:
    """Bring a bias to the scales of its weights, which are those that its own is a multiple of."""
    own = _floats(new, scale)
    for fresh, ratio in ratios:
        if len(fresh) != len(own) or bias.shape != scale.shape:
            continue
        shares = own / fresh
        if np.abs(shares / np.median(shares) - 1).max() < _SAME_RATIO:
            values = np.frombuffer(new, "<i4", bias.length // 4, bias.offset)
            whole = np.clip(np.rint(values / ratio), -(2**31), 2**31 - 1)
            out[bias.offset : bias.offset + bias.length] = whole.astype("<i4").tobytes()
            scaled = (own * ratio).astype("<f4")
            out[scale.offset : scale.offset + scale.length] = scaled.tobytes()
            return


def _scaled(path: Path, parts: Mapping[str, Part]) -> list[tuple[str, str]]:
    """(values, scales) of every constant with scales, by the names of their parts."""
    if path.suffix == ".tflite":
        ends = "/scale"
        return [(name.removesuffix(ends), name) for name in parts if name.endswith(ends)]
    import onnx

    nodes = onnx.load(str(path)).graph.node
    return [(node.input[0], node.input[1]) for node in nodes if node.op_type == "DequantizeLinear"]


def _floats(data: bytes, part: Part) -> Floats:
    return np.frombuffer(data, "<f4", part.length // 4, part.offset).astype(np.float64)


def _counterpart(item: Measured, earlier: Conversion, folder: Path) -> bytes | None:
    """The earlier file of the same role, for an artifact whose weights are static int8."""
    if parse_scheme(item.scheme).mode != "static":
        return None
    for artifact in earlier.artifacts.values():
        role = (artifact.format, artifact.scheme, artifact.height_px, artifact.width_px)
        name = earlier.files.get(artifact.digest)
        if role == (item.format, item.scheme, item.height_px, item.width_px) and name:
            return (folder / name).read_bytes()
    return None


def _swapped(
    item: Measured,
    data: bytes,
    verify: Callable[[list[dict[str, Any]]], list[Measured]],
    scratch: Path,
) -> Measured:
    """Measure other bytes in an artifact's place; the original waits in the scratch folder."""
    for path in (item.path, item.golden):
        shutil.copyfile(path, scratch / f"usual-{path.name}")
    item.path.write_bytes(data)
    built = {
        "path": str(item.path),
        "scheme": item.scheme,
        "format": item.format,
        "height": item.height_px,
        "width": item.width_px,
    }
    return verify([built])[0]


def _restore(item: Measured, scratch: Path) -> None:
    for path in (item.path, item.golden):
        shutil.copyfile(scratch / f"usual-{path.name}", path)
