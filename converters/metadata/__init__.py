"""What a model file says about itself beyond its graph: preprocessing, labels, layout, origin.

Written in each format's own standard place (ONNX ``metadata_props``; the ``TFLITE_METADATA`` buffer
and its associated files), so that other tools understand it, plus one JSON note that loses nothing.
"""

from converters.metadata.notes import ModelNotes, annotate, notes_for, read_notes, write_notes

__all__ = ["ModelNotes", "annotate", "notes_for", "read_notes", "write_notes"]
