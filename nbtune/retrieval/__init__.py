"""Documents as an index that can be searched: what stands before a prompt when the answer is to be looked up. Imports no torch."""

from nbtune.retrieval.indexed import Index, indexes, open_index
from nbtune.retrieval.making import index
from nbtune.retrieval.passages import Passage, Passages

__all__ = ["Index", "Passage", "Passages", "index", "indexes", "open_index"]
