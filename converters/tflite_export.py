"""PyTorch to TFLite, float32 (litert-torch), channels last on the outside and inside."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from converters.blame import Example, as_inputs, exporting, refuse_operators
from converters.inspect import inspect_model
from converters.norms import fold_norms
from converters.purity import flat_outputs
from converters.tflite_tidy import tidy

SIGNATURE = "serving_default"
INPUT = "args_0"
"""The signature's name of the first input; the others follow in order."""


def export_tflite(module: nn.Module, example: Example, path: Path) -> None:
    """Write ``module`` as a TFLite file whose images are NHWC.

    Every float input and output of rank 4 is an image: (1, C, H, W) in the module is
    (1, H, W, C) in the file. Whole-number inputs of 64 bits become 32 bits wide.

    Args:
        module: in evaluation mode, parameters contiguous.
        example: one sample, a tensor (1, ...) or one per input; the shapes become the file's.
        path: written whole; the caller owns the folder.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """
    import litert_torch

    litert_torch.config.show_progress = False

    inputs = as_inputs(example)
    module = fold_norms(module, inputs)
    with torch.inference_mode():
        outputs = flat_outputs(module(*inputs))
    images = [index for index, tensor in enumerate(inputs) if is_image(tensor)]
    pictures = [index for index, tensor in enumerate(outputs) if is_image(tensor)]

    def export() -> None:
        layer = Flat(module).eval()
        if images or pictures:
            layer = litert_torch.to_channel_last_io(layer, args=images, outputs=pictures).eval()
        sample = tuple(
            tensor.permute(0, 2, 3, 1).contiguous() if index in images else tensor.contiguous()
            for index, tensor in enumerate(inputs)
        )
        litert_torch.convert(layer, sample).export(str(path))

    exporting("TFLite", module, inputs, export)
    tidy(path)
    refuse_operators("TFLite", module, inputs, inspect_model(path).ops)


class Flat(nn.Module):
    """The module with nested outputs opened: the layout change counts them flat."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """One tensor, or a flat tuple."""
        outputs = flat_outputs(self.module(*inputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def is_image(tensor: torch.Tensor) -> bool:
    """Whether TFLite files hold this input or output channels last."""
    return tensor.ndim == 4 and tensor.is_floating_point()
