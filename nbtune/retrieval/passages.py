"""What a search has found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, cast, overload

from nbtune.errors import NbtuneError
from nbtune.views import view

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.retrieval.spec import SearchBy

__all__ = ["Passage", "Passages", "fused"]

RANK_CONSTANT: Final = 60


@dataclass(frozen=True)
class Passage:
    """A chunk that was found: characters `start` to `end` of `source`, under the titles of `heading`.

    `score` is by vector the cosine, by text BM25, and of both the sum of reciprocal ranks; the higher the nearer.
    """

    text: str
    source: str
    heading: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Passages(Sequence[Passage]):
    """The passages found for a query, the best first."""

    query: str
    by: SearchBy
    items: tuple[Passage, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row a passage: text, source, heading, start, end, score."""
        import pandas as pd

        return pd.DataFrame([asdict(item) for item in self.items], columns=list(Passage.__dataclass_fields__))

    @overload
    def __getitem__(self, place: int) -> Passage: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Passage]: ...
    def __getitem__(self, place: int | slice) -> Passage | Sequence[Passage]:
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self.items)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("passages_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": repr(self)}


def fused(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Keys with the sums of their reciprocal ranks 1 / (60 + rank), the highest first, of the same by key.

    Cormack, Clarke and Buettcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods".
    """
    sums: dict[str, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            sums[key] = sums.get(key, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(sums.items(), key=lambda entry: (-entry[1], entry[0]))
