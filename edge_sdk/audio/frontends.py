"""Which front end a network wants: ours, samples as they are, or that of microWakeWord."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edge_sdk.audio.bands import bad_features
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import SourceError

_MICRO = FeatureSpec(kind="micro", window_samples=480, hop_samples=160, bands=40)
"""What the TensorFlow Lite Micro front end computes; nothing about it can be chosen."""


class Frames(Protocol):
    """From sound to frames of numbers, block by block."""

    def push(self, samples: Floats) -> Floats:
        """The frames (T, bands) float32 that these samples (N,) complete."""

    def reset(self) -> None:
        """Forget the stream."""

    def skip(self) -> None:
        """The stream goes on somewhere else, in the same room."""


def front_end(spec: FeatureSpec) -> Frames:
    """The front end that a specification describes.

    Raises:
        ContractError: ``contract.bad-features``.
        SourceError: ``source.extra-missing``.
    """
    if spec.kind == "samples":
        return Samples(spec)
    return MicroFrontEnd(spec) if spec.kind == "micro" else FrontEnd(spec)


class Samples:
    """Frames are the samples themselves, for networks that bring their own front end.

    Args:
        spec: whose window, hop and bands are all the same number.

    Raises:
        ContractError: ``contract.bad-features``.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        if not spec.hop_samples == spec.window_samples == spec.bands:
            raise bad_features("for samples as they are, window, hop and bands must be one number")
        self._size = spec.bands
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._waiting: Floats = np.zeros(0, np.float32)

    skip = reset

    def push(self, samples: Floats) -> Floats:
        """The frames (T, bands) float32 that these samples (N,) complete."""
        waiting = np.concatenate((self._waiting, samples))
        count = len(waiting) // self._size
        self._waiting = waiting[count * self._size :].copy()
        return waiting[: count * self._size].reshape(count, self._size)


class MicroFrontEnd:
    """The front end of TensorFlow Lite Micro, by the package ``pymicro-features``.

    30 ms of sound every 10 ms, 40 bands, with noise reduction and gain control in whole numbers.

    Args:
        spec: which must say just that.

    Raises:
        ContractError: ``contract.bad-features``.
        SourceError: ``source.extra-missing``.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        if (spec.sample_rate_hz, spec.window_samples, spec.hop_samples, spec.bands) != (
            *(_MICRO.sample_rate_hz, _MICRO.window_samples, _MICRO.hop_samples, _MICRO.bands),
        ):
            raise bad_features("micro features are 40 bands of 480 samples every 160 at 16 kHz")
        self._hop, self._bands = spec.hop_samples, spec.bands
        self._front = _micro_frontend()
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._front.reset()
        self._waiting: Floats = np.zeros(0, np.float32)

    skip = reset

    def push(self, samples: Floats) -> Floats:
        """The frames (T, 40) float32 that these samples (N,) complete."""
        waiting = np.concatenate((self._waiting, samples))
        whole = len(waiting) // self._hop * self._hop
        self._waiting = waiting[whole:].copy()
        scaled = np.clip(np.rint(waiting[:whole] * np.float32(2**15)), -(2**15), 2**15 - 1)
        data = scaled.astype("<i2").reshape(-1, self._hop)
        answers = (self._front.process_samples(row.tobytes()).features for row in data)
        frames = [answer for answer in answers if answer]
        return np.asarray(frames, np.float32).reshape(len(frames), self._bands)


def _micro_frontend() -> Any:
    try:
        from pymicro_features import MicroFrontend
    except ImportError as error:
        raise SourceError(
            "extra-missing",
            f"The release takes microWakeWord's features, which need pymicro-features: {error}.",
            "pip install pymicro-features",
        ) from error
    return MicroFrontend()
