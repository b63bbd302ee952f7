"""Repairs of a float module that make its quantized file err less, each proven by measurement."""

from converters.repair.bias import correct_biases
from converters.repair.equalize import equalize
from converters.repair.pairs import Pair, find_pairs

__all__ = ["Pair", "correct_biases", "equalize", "find_pairs"]
