"""How sound becomes a model's input; the same words for training and device."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from edge_sdk.contracts.base import Wire


class FeatureSpec(Wire, kw_only=True):
    """A spectrogram: windows of sound, their energy in mel bands, compressed.

    The defaults see 25 ms every 10 ms. ``pcen`` divides each band by its own recent level
    (per-channel energy normalisation, Wang et al. 2017, "Trainable frontend for robust and
    far-field keyword spotting"), so that a far or quiet microphone gives much the same values as a
    near one; ``log`` is the plain logarithm.

    ``mel`` spaces the bands as HTK does, ``slaney`` as Slaney's Auditory Toolbox (1998) and librosa
    do, evenly up to 1 kHz. It is a kind of its own, and no field, because an agent that does not
    know it must refuse the release instead of hearing with other bands.

    Networks of other projects bring their own: ``samples`` are the samples as they are, ``bands``
    of them to a frame; ``micro`` are microWakeWord's, which need ``pymicro-features``.
    """

    kind: Literal["mel", "slaney", "samples", "micro"] = "mel"
    sample_rate_hz: Annotated[int, Meta(ge=8000, le=48000)] = 16000
    window_samples: Annotated[int, Meta(ge=32, le=8192)] = 400
    hop_samples: Annotated[int, Meta(ge=16, le=8192)] = 160
    fft_samples: Annotated[int, Meta(ge=32, le=8192)] = 512
    """At least :attr:`window_samples`; the window is padded with zeros up to it."""
    bands: Annotated[int, Meta(ge=1, le=256)] = 40
    low_hz: Annotated[float, Meta(ge=0)] = 60.0
    high_hz: Annotated[float, Meta(gt=0)] = 7600.0
    compression: Literal["pcen", "log"] = "pcen"
    floor: Annotated[float, Meta(gt=0, le=1)] = 1e-8
    """Energy below which nothing is told apart, full scale being 1: -80 dB."""
    smoothing: Annotated[float, Meta(gt=0, le=1)] = 0.025
    """``pcen``: share of a new frame in a band's recent level; 0.025 remembers 0.4 s."""
    gain: Annotated[float, Meta(ge=0, le=1)] = 0.98
    """``pcen``: power of the recent level that the energy is divided by."""
    bias: Annotated[float, Meta(gt=0, le=100)] = 2.0
    power: Annotated[float, Meta(gt=0, le=1)] = 0.5


class WakeWord(Wire, kw_only=True):
    """When a word counts as heard."""

    label: str
    output: Annotated[int, Meta(ge=0)] = 0
    """Which of the network's scores is this word's."""
    cutoff: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Mean score over the window from which on it counts."""
    window_steps: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Steps of the network in the sliding window."""
    refractory_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    """Not heard again for so long."""


class SoundInfo(Wire, kw_only=True):
    """How a network listens: what a step takes, what its scores mean, which words to report."""

    features: FeatureSpec
    frames_per_step: Annotated[int, Meta(ge=1, le=10000)] = 1
    """New frames of features in one step."""
    order: Literal["frames-bands", "bands-frames"] = "bands-frames"
    """Which axis of the first input that is no state comes first; axes of 1 do not count."""
    labels: tuple[str, ...]
    """Of the elements of the first output that is no state."""
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    """What makes probabilities of it; ``none`` where the network ends in one."""
    words: tuple[WakeWord, ...] = ()
    """Reported when heard. Empty: the most probable label of every step is the result."""


class EnhanceSpec(Wire, kw_only=True):
    """How an enhancer cuts sound into spectra; the step between two is half a window.

    The delay of what comes out is one window: 32 ms by default.
    """

    sample_rate_hz: Annotated[int, Meta(ge=8000, le=48000)] = 16000
    window_samples: Annotated[int, Meta(ge=32, le=8192)] = 512
    bands: Annotated[int, Meta(ge=4, le=1024)] = 128
    """That the network sees and answers for."""
    single_bins: Annotated[int, Meta(ge=1, le=1024)] = 64
    """The lowest bands are one bin each, so that a voice's overtones are told apart."""


class Enhancement(Wire, kw_only=True):
    """A network that cleans speech: a task of its own, or the filter before one that listens."""

    spec: EnhanceSpec
    artifacts: dict[str, str] = field(default_factory=dict)
    """By runtime, digest of the artifact that is the filter; empty where the task's own network
    cleans."""
