"""Mel bands: triangles over the bins of a spectrum, wider towards high frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import ContractError

Doubles = npt.NDArray[np.float64]

_STRAIGHT_HZ: Final = 1000.0
_STRAIGHT_MEL: Final = 15.0
_RATIO: Final = float(np.log(6.4)) / 27.0


@dataclass(frozen=True, slots=True)
class Bands:
    """Where the triangles rise and fall.

    The spectrum between two neighbouring centres is the falling side of one triangle and the
    rising side of the next. So each bin is weighed twice, and the sums run over the pieces between
    centres: a fixed order of additions, which a matrix product would not promise.
    """

    first: int
    """The lowest bin that counts."""
    last: int
    """One after the highest."""
    starts: npt.NDArray[np.intp]
    """First bin of each piece, relative to :attr:`first`; one piece more than bands."""
    rising: Doubles
    falling: Doubles

    def energies(self, power: Doubles) -> Doubles:
        """(T, bands) from a power spectrum (T, bins)."""
        used = power[:, self.first : self.last]
        up = np.add.reduceat(used * self.rising, self.starts, axis=1)
        down = np.add.reduceat(used * self.falling, self.starts, axis=1)
        found: Doubles = up[:, :-1] + down[:, 1:]
        return found


def make_bands(spec: FeatureSpec) -> Bands:
    """The triangles of a specification.

    Raises:
        ContractError: ``contract.bad-features`` when a band would hold no bin, or the frequencies
            do not fit the rate.
    """
    if not 0 <= spec.low_hz < spec.high_hz <= spec.sample_rate_hz / 2:
        raise bad_features(
            f"the bands reach from {spec.low_hz:g} to {spec.high_hz:g} Hz, and sound at "
            f"{spec.sample_rate_hz} Hz has no more than {spec.sample_rate_hz / 2:g}"
        )
    mel, hertz = (_mel_slaney, _hertz_slaney) if spec.kind == "slaney" else (_mel, _hertz)
    edges = hertz(np.linspace(mel(spec.low_hz), mel(spec.high_hz), spec.bands + 2))
    bins = np.arange(spec.fft_samples // 2 + 1) * (spec.sample_rate_hz / spec.fft_samples)
    bounds = np.searchsorted(bins, edges)
    if (np.diff(bounds) < 1).any():
        raise bad_features(
            f"{spec.bands} bands from {spec.low_hz:g} Hz are narrower than the "
            f"{bins[1]:.1f} Hz between two bins"
        )
    used = bins[bounds[0] : bounds[-1]]
    piece = np.searchsorted(edges, used, side="right") - 1
    rising = (used - edges[piece]) / (edges[piece + 1] - edges[piece])
    return Bands(int(bounds[0]), int(bounds[-1]), bounds[:-1] - bounds[0], rising, 1.0 - rising)


def bad_features(what: str) -> ContractError:
    """A specification that no spectrogram can follow."""
    return ContractError(
        "bad-features",
        f"The model's sound features cannot be computed: {what}.",
        "Correct the task's features (fewer bands, a longer transform, other frequencies).",
    )


# Slaney 1998, "Auditory Toolbox": evenly up to 1 kHz, from there on by equal ratios.
def _mel_slaney(hertz: float) -> float:
    if hertz < _STRAIGHT_HZ:
        return hertz / _STRAIGHT_HZ * _STRAIGHT_MEL
    return _STRAIGHT_MEL + float(np.log(hertz / _STRAIGHT_HZ)) / _RATIO


def _hertz_slaney(mel: Any) -> Doubles:
    above = np.maximum(mel, _STRAIGHT_MEL) - _STRAIGHT_MEL
    straight = np.minimum(mel, _STRAIGHT_MEL) * (_STRAIGHT_HZ / _STRAIGHT_MEL)
    found: Doubles = straight * np.exp(above * _RATIO)
    return found


def _mel(hertz: float) -> float:
    return 1127.0 * float(np.log1p(hertz / 700.0))


def _hertz(mel: Any) -> Doubles:
    found: Doubles = 700.0 * np.expm1(mel / 1127.0)
    return found
