"""Every task x format x scheme, each cell verified or refused with its reason.

A conversion stops at the first scheme that fails, because a release must be whole. A survey goes
on: it answers what works for which network, and is how the project checks its zoo of
architectures (``benchmarks/zoo.py``).
"""

from converters.survey.cell import SCHEMES, Cell
from converters.survey.run import survey

__all__ = ["SCHEMES", "Cell", "survey"]
