"""Ranges of activations: observed over calibration samples, chosen by a method, per format."""

from converters.calibrate.methods import Histogram, choose_range
from converters.calibrate.observe import Range, Ranges, align, observe

__all__ = ["Histogram", "Range", "Ranges", "align", "choose_range", "observe"]
