"""Recipes: how a model file is built on the device from another one that is there already.

The artifacts of a ladder share most of their bytes: a narrower width is a prefix of every weight
tensor, another resolution changes only shapes. A recipe says so in three instructions (literal
bytes, a strided block of the base, a strided block plus differences) that know nothing of ONNX or
TFLite, so that the device needs no parser of either. Finding a recipe is the host's work and may be
as clever as it likes; building from one is bounded, checked copying.
"""
