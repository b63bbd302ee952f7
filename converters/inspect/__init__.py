"""What is really inside a model file: element types, operators, sizes."""

from converters.inspect.claims import check_claim, problems_with
from converters.inspect.model import Layer, ModelFacts, ModelFormat, inspect_model

__all__ = ["Layer", "ModelFacts", "ModelFormat", "check_claim", "inspect_model", "problems_with"]
