"""Which texts are (nearly) the same, so that no such pair is split over training and test rows.

Candidates come from MinHash with locality-sensitive hashing (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900); each is
confirmed by its true Jaccard similarity J(A, B) = |A & B| / |A | B| of character 5-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["fold", "near_duplicate_groups", "united"]

_SHINGLE: Final = 5
_PERMUTATIONS: Final = 128
_RECALL: Final = 0.999


def fold(text: str) -> str:
    """The text without differences of case and spacing."""
    return " ".join(text.casefold().split())


def near_duplicate_groups(texts: Sequence[str], *, threshold: float = 0.8) -> list[int]:
    """The group of each text, numbered from 0 by first appearance.

    Equal folded texts share a group, and so do texts whose 5-gram Jaccard similarity is at least `threshold`, and what such pairs
    link. The same texts give the same partition in any order. A pair at the threshold is missed less than once in a thousand.
    """
    first: dict[str, int] = {}
    unique = [first.setdefault(fold(text), len(first)) for text in texts]
    parents = list(range(len(first)))
    for left, right in _near_pairs(list(first), threshold):
        _union(parents, left, right)
    roots = [_root(parents, number) for number in unique]
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root, len(numbers)) for root in roots]


def united(groups: Sequence[int], keys: Sequence[str]) -> list[int]:
    """The groups with those made one that share a key (one of each member), numbered from 0 by first appearance."""
    parents = list(range(max(groups, default=-1) + 1))
    first: dict[str, int] = {}
    for group, key in zip(groups, keys, strict=True):
        _union(parents, first.setdefault(key, group), group)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(_root(parents, group), len(numbers)) for group in groups]


def _near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    if len(texts) < 2:  # noqa: PLR2004
        return []
    from datasketch import MinHash, MinHashLSH

    shingles = [_shingles(text) for text in texts]
    bands, rows = _bands(threshold)
    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    # The shingles are hashed already; MinHash shall permute them, not hash them again.
    hashes = MinHash.generator((values.tolist() for values in shingles), num_perm=bands * rows, seed=1, hashfunc=int)
    pairs: list[tuple[int, int]] = []
    for number, minhash in enumerate(hashes):
        near = (other for other in index.query(minhash) if _jaccard(shingles[number], shingles[other]) >= threshold)
        pairs.extend((other, number) for other in near)
        index.insert(number, minhash, check_duplication=False)
    return pairs


def _bands(threshold: float) -> tuple[int, int]:
    """Bands b and rows r of the index: the largest r whose chance 1 - (1 - t^r)^b to meet at similarity t is high enough."""
    for rows in range(16, 1, -1):
        bands = _PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return _PERMUTATIONS // 2, 2


def _shingles(text: str) -> NDArray[np.uint32]:
    """Sorted distinct 32-bit hashes of the text's 5-grams (of the whole text, where it is shorter)."""
    import numpy as np

    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = max(1, min(_SHINGLE, len(codes)))
    count = max(0, len(codes) - width + 1)
    mixed = np.full(count, width, dtype=np.uint64)
    for offset in range(width):
        mixed = (mixed ^ codes[offset : offset + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def _jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    import numpy as np

    if not len(left) or not len(right):
        return float(len(left) == len(right))
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _union(parents: list[int], left: int, right: int) -> None:
    low, high = sorted((_root(parents, left), _root(parents, right)))
    parents[high] = low
