"""Reading model files for the lint of :mod:`device_profiles.lint`."""

from converters.linting.run import FileLint, lint_file, scheme_of
from converters.linting.source import read_graph

__all__ = ["FileLint", "lint_file", "read_graph", "scheme_of"]
