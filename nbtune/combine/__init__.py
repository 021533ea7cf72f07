"""Several runs' adapters as one run. Importing this imports no torch."""

from nbtune.combine.combination import combine
from nbtune.combine.options import CombineSpec

__all__ = ["CombineSpec", "combine"]
