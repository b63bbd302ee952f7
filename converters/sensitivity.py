"""Which layers a scheme hurts: each is quantized alone, and the file's outputs are compared.

The layers that alone cost the most are kept in float32 first (mixed precision), one more step at
a time, until the artifact holds what is demanded of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converters.answers import answers_of
from converters.calibrate.observe import Ranges
from converters.layers import GraphLayer, layers_of
from converters.measure import sqnr_db
from converters.results import LayerScore
from converters.settings import Settings
from converters.task import Floats
from edge_sdk.errors import ConversionError

MAX_LAYERS = 96
"""Layers analysed; of deeper networks every n-th, the first and the last among them."""
MAX_SAMPLES = 16
"""Samples compared per layer: noise of quantization shows in few."""

Quantize = Callable[[Path, str, Floats, Path, Settings, Ranges | None], None]


def analyse(
    source: Path,
    scheme: str,
    samples: Floats,
    quantize: Quantize,
    *,
    settings: Settings,
    ranges: Ranges | None,
    scratch: Path,
    step: Callable[[str], None] = lambda text: None,
) -> list[LayerScore]:
    """Score every layer of a float file.

    Args:
        source: float file by our exporters.
        scheme: that each layer is quantized by.
        samples: packed calibration samples.
        quantize: of the format.
        settings: calibration and granularity.
        ranges: of activations, for static schemes.
        scratch: folder for files that are gone afterwards.
        step: told each layer.

    Returns:
        Scores, the worst layer first. A layer that the quantizer cannot handle alone is left out.
    """
    few = samples[:MAX_SAMPLES]
    expected, widths = answers_of(source, few)
    target = scratch / f"one-layer{source.suffix}"
    found = []
    for layer in _thinned(layers_of(source)):
        step(f"sensitivity of {layer.name}")
        try:
            quantize(source, scheme, few, target, replace(settings, only=(layer.name,)), ranges)
        except ConversionError:
            continue
        outputs, _ = answers_of(target, few)
        found.append(LayerScore(layer.name, layer.op, sqnr_db(outputs, expected, widths)))
        target.unlink()
    return sorted(found, key=lambda score: score.sqnr_db)


def keep_steps(scores: Sequence[LayerScore]) -> Iterator[tuple[str, ...]]:
    """Ever longer lists of the worst layers: 1, 2, 3, 5, 8... and all but one at the end."""
    names = [score.name for score in scores]
    count, following = 1, 2
    while count < len(names) - 1:
        yield tuple(names[:count])
        count, following = following, count + following
    if len(names) > 1:
        yield tuple(names[:-1])


def _thinned(layers: Sequence[GraphLayer]) -> list[GraphLayer]:
    if len(layers) <= MAX_LAYERS:
        return list(layers)
    last = len(layers) - 1
    return [layers[round(index * last / (MAX_LAYERS - 1))] for index in range(MAX_LAYERS)]
