"""Child process: exports a task to one format and quantizes it (see :mod:`converters.children`).

The child loads the user's file itself, so that nothing but paths and arrays crosses over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.children import child_main
from converters.inspect import check_claim, inspect_model
from converters.schemes import parse_scheme
from converters.settings import DEFAULTS, Settings
from converters.wiring import named_feeds


def build(request: dict[str, Any], step: Callable[[str], None]) -> list[dict[str, Any]]:
    """Build every artifact of one format.

    Args:
        request: ``task``, ``weights`` (path or None), ``format``, ``resolutions``, ``schemes``,
            ``only`` (the [resolution, scheme] pairs that are meant; all when absent), ``width``
            (of the module, 1.0 when absent), ``folder`` (where the artifacts go; a float export
            that lies there already is used), ``qat`` (a checkpoint of :mod:`converters.qat`, or
            None), ``calibration`` (an ``.npz`` with one array per resolution, named ``HxW``),
            ``threads``, ``settings`` (:meth:`converters.settings.Settings.as_dict`).
        step: told what is being built.

    Returns:
        One ``{"path", "scheme", "height", "width"}`` per artifact.
    """
    import torch

    from converters.loading import FULL_WIDTH, load_task
    from converters.module import build_module, check_examples

    torch.set_num_threads(request["threads"])
    task = load_task(request["task"], width=request.get("width", FULL_WIDTH))
    weights = request["weights"]
    module = build_module(task, Path(weights) if weights else None)
    export, quantize = tools(request["format"])
    if request.get("qat"):
        from converters.qat.checkpoint import trained_quantizer

        quantize = trained_quantizer(task, request, quantize)
    settings = Settings.of(request["settings"]) if "settings" in request else DEFAULTS
    built = []
    with np.load(request["calibration"]) as samples:
        for height, width in request["resolutions"]:
            size = f"{height}x{width}"
            schemes = _wanted(request, size)
            if not schemes:
                continue
            source = _path(request, size, "fp32")
            if not source.exists():
                step(f"export {size}")
                export(module, check_examples(task, module, height, width), source)
            specs = inspect_model(source).inputs
            calibration = named_feeds(samples[size], specs, request["format"])
            for scheme in schemes:
                target = _path(request, size, scheme)
                if scheme != "fp32":
                    step(f"{scheme} {size}")
                    quantize(source, scheme, calibration, target, settings)
                check_claim(inspect_model(target), parse_scheme(scheme), target)
                built.append(
                    {"path": str(target), "scheme": scheme, "height": height, "width": width}
                )
    return built


def _wanted(request: dict[str, Any], size: str) -> list[str]:
    """Schemes to build at one resolution."""
    only = request.get("only")
    return [s for s in request["schemes"] if only is None or [size, s] in only]


def tools(kind: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Exporter and quantizer of a format."""
    if kind == "onnx":
        from converters.onnx_export import export_onnx
        from converters.onnx_quantize import quantize_onnx

        return export_onnx, quantize_onnx
    from converters.tflite_export import export_tflite
    from converters.tflite_quantize import quantize_tflite

    return export_tflite, quantize_tflite


def _path(request: dict[str, Any], size: str, scheme: str) -> Path:
    return Path(request["folder"]) / f"{request['name']}-{size}-{scheme}.{request['format']}"


if __name__ == "__main__":
    child_main(build)
