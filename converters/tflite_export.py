"""PyTorch to TFLite, float32 (litert-torch), channels last on the outside and inside."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from converters.blame import exporting

SIGNATURE = "serving_default"
INPUT = "args_0"


def export_tflite(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ``module`` as a TFLite file whose input is NHWC.

    Args:
        module: in evaluation mode, parameters contiguous.
        example: (1, C, H, W) float32; the file's input is (1, H, W, C).
        path: written whole; the caller owns the folder.

    Raises:
        ConversionError: ``conversion.unsupported-op``, ``conversion.export-failed``.
    """
    import litert_torch

    litert_torch.config.show_progress = False

    def export() -> None:
        channels_last = litert_torch.to_channel_last_io(module, args=[0]).eval()
        nhwc = example.permute(0, 2, 3, 1).contiguous()
        litert_torch.convert(channels_last, (nhwc,)).export(str(path))

    exporting("TFLite", module, example, export)
