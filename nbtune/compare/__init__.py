"""The grid: several approaches on the same held-out rows. Importing this imports no torch."""

from nbtune.compare.comparison import Comparison
from nbtune.compare.grid import compare

__all__ = ["Comparison", "compare"]
