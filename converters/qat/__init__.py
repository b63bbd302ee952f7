"""Quantization-aware training whose scales survive into ONNX QDQ and int8 TFLite.

:mod:`~converters.qat.prepare` rewrites a module so that it trains on the int8 grid,
:mod:`~converters.qat.train` trains it, :mod:`~converters.qat.emit` writes the artifacts, and
:mod:`~converters.qat.parity` compares what both formats carry.
"""
