"""Deltas: how an update of a model file travels as its differences to the file before.

The host knows formats: it pairs the tensors of two files (:mod:`edge_sdk.delta.find`) and chooses
what each is predicted from. The device (:mod:`edge_sdk.delta.apply`) follows a checked program of
copies, predictions and differences, and needs to know no format. See ``docs/deltas.md``.
"""
