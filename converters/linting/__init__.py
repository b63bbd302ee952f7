"""Reading model files for the lint of :mod:`device_profiles.lint`."""

from converters.linting.run import FileLint, float_share, lint_file, lint_graph, scheme_of
from converters.linting.source import read_graph

__all__ = ["FileLint", "float_share", "lint_file", "lint_graph", "read_graph", "scheme_of"]
