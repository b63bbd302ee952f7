"""Existing ``.onnx`` and ``.tflite`` files: examined, quantized, verified and packed.

The file may come from a stranger. Everything that parses or runs it happens in a child process
with bounded memory and time; what the parent handles has been rewritten by that child.
"""

from converters.importing.run import ImportOptions, import_model

__all__ = ["ImportOptions", "import_model"]
