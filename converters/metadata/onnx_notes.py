"""Notes in ONNX files: ``metadata_props``, with the keys that ONNX itself defines for images.

Source of the keys: the ONNX project's document MetadataProps.md (``Image.*``, ``model_*``).
"""

from __future__ import annotations

from pathlib import Path

import onnx

from converters.inspect.onnx_file import load_graph
from converters.metadata.notes import KEY, ModelNotes, decode_notes
from edge_sdk import __version__
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import Preprocess

_FORMATS = {"gray": "Gray8", "rgb": "Rgb8"}
_RANGES = {
    (0.0, 1.0): "NominalRange_0_255",
    (0.0, 255.0): "Normalized_0_1",
    (127.5, 127.5): "Normalized_1_1",
}
"""Mean and deviation, in pixel units, that ONNX has a word for."""
_OWN = (KEY, "Image.BitmapPixelFormat", "Image.ColorSpaceGamma", "Image.NominalPixelRange")


def write_onnx_notes(path: Path, notes: ModelNotes) -> None:
    """See :func:`converters.metadata.write_notes`."""
    model = load_graph(path)
    kept = [entry for entry in model.metadata_props if entry.key not in _OWN]
    properties = {KEY: encode(notes).decode()}
    if notes.preprocess is not None:
        properties |= _image_properties(notes.preprocess)
    entries = [(entry.key, entry.value) for entry in kept]
    del model.metadata_props[:]
    for key, value in (*entries, *properties.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.producer_name = "edge-sdk"
    model.producer_version = __version__
    model.doc_string = notes.description
    onnx.save(model, str(path))


def read_onnx_notes(path: Path) -> ModelNotes | None:
    """See :func:`converters.metadata.read_notes`."""
    model = load_graph(path)
    found = {entry.key: entry.value for entry in model.metadata_props}
    if KEY in found:
        return decode_notes(found[KEY].encode())
    preprocess = _preprocess_from(found)
    if preprocess is None and not model.doc_string:
        return None
    return ModelNotes(
        name=path.stem, description=model.doc_string[:2000], scheme="", preprocess=preprocess
    )


def _image_properties(preprocess: Preprocess) -> dict[str, str]:
    found = {
        "Image.BitmapPixelFormat": _FORMATS[preprocess.color],
        "Image.ColorSpaceGamma": "SRGB",
    }
    pairs = set(zip(preprocess.mean, preprocess.std, strict=False))
    if len(pairs) == 1 and (nominal := _RANGES.get(next(iter(pairs)))):
        found["Image.NominalPixelRange"] = nominal
    return found


def _preprocess_from(found: dict[str, str]) -> Preprocess | None:
    """What the standard keys tell; None unless they tell colour and range both."""
    form = found.get("Image.BitmapPixelFormat", "")
    nominal = found.get("Image.NominalPixelRange", "")
    pair = next((pair for pair, name in _RANGES.items() if name == nominal), None)
    if form not in _FORMATS.values() or pair is None:
        return None
    if form == _FORMATS["gray"]:
        return Preprocess(color="gray", mean=pair[:1], std=pair[1:])
    return Preprocess(color="rgb", mean=pair[:1] * 3, std=pair[1:] * 3)
