"""Two texts that are read together: does one follow from the other, do they mean the same, does it answer the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from nbtune.data.examples import Filled, Rendered, fill
from nbtune.data.rows import Row
from nbtune.data.templates import Template

__all__ = ["Pair", "paired"]


class Pair(Rendered):
    """Two texts as one to read and compare, a line break between them; an encoder reads `first` and `second` as its two segments."""

    __slots__ = ("first", "second")
    first: str
    second: str

    @classmethod
    def of(cls, first: str, second: str) -> Self:
        """The pair of two texts."""
        made = cls(f"{first}\n{second}")
        made.first, made.second = first, second
        return made


def paired(filled: Sequence[Filled], rows: Sequence[Row], second: Template, part: str = "") -> list[Filled]:
    """Rows whose prompt becomes the pair of itself and what `second` says.

    Raises:
        DataError: as `fill`, of the second text.
    """
    seconds = fill(rows, second, None, part, what="text_pair")
    return [replace(item, prompt=Pair.of(item.prompt, other.prompt)) for item, other in zip(filled, seconds, strict=True)]
