"""Small architectures of every family that people put on devices, as task files.

Each class is a task of kind ``generic`` with random but settled weights: what is tested is the
way through the converters, not what a network has learned.
"""

from __future__ import annotations

from pathlib import Path

_FILES = {
    "classifiers": (
        "ResNet18",
        "MobileNetV1",
        "MobileNetV2",
        "MobileNetV3",
        "EfficientNet",
        "ShuffleNet",
        "RegNet",
        "ConvNeXt",
        "SqueezeExcite",
    ),
    "dense": (
        "UNet",
        "FpnDetector",
        "SsdHead",
        "Autoencoder",
        "GanGenerator",
        "TransposedConv",
        "SuperResolution",
    ),
    "attention": ("VisionTransformer", "MobileViT", "AttentionBlock", "TextEncoder"),
    "sequences": ("Gru", "Lstm", "Tcn", "DsCnn", "BcResNet", "StreamingConv"),
    "several": ("MultiInput", "MultiOutput"),
}


def zoo() -> dict[str, str]:
    """Architecture to ``path.py:Class``."""
    folder = Path(__file__).parent
    return {
        name: f"{folder / f'{stem}.py'}:{name}" for stem, names in _FILES.items() for name in names
    }
