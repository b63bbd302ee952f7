"""What is refused before anything is tried."""

from __future__ import annotations

from torch import nn

from edge_sdk.errors import ConversionError

MAX_WEIGHT_BYTES = 2 * 1024**3 - 64 * 1024**2
"""Both formats are one file of at most 2 GiB; the graph around the weights needs some of it."""


def check_size(module: nn.Module, limit_bytes: int = MAX_WEIGHT_BYTES) -> int:
    """Bytes of the module's weights as float32, shared ones counted once.

    Only shapes are read: a module on the ``meta`` device is judged without memory for it.

    Raises:
        ConversionError: ``conversion.too-large`` naming the largest layers.
    """
    total = 0
    seen: set[int] = set()
    by_layer: dict[str, int] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        size = tensor.numel() * 4
        layer = name.rpartition(".")[0] or "the module itself"
        by_layer[layer] = by_layer.get(layer, 0) + size
        total += size
    if total > limit_bytes:
        largest = sorted(by_layer, key=lambda layer: -by_layer[layer])[:3]
        shown = ", ".join(f"{layer!r} ({by_layer[layer] / 1024**2:.0f} MiB)" for layer in largest)
        raise ConversionError(
            "too-large",
            f"The weights take {total / 1024**3:.1f} GiB as float32, over the "
            f"{limit_bytes / 1024**3:.1f} GiB one file can hold; the largest layers: {shown}.",
            "Make these layers narrower, or distil a smaller network from this one.",
        )
    return total
