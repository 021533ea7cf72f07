"""Documents cut into chunks: by their headings first, then at paragraphs, lines, sentences and words, so that none is too long."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError

if TYPE_CHECKING:
    from nbtune.retrieval.documents import Document

__all__ = ["Chunk", "Units", "characters", "chunks_of", "token_units"]

Units = Callable[[str], Sequence[int]]
"""Where the units of a text begin that lengths are counted in, in order."""

_BREAKS: Final = tuple(map(re.compile, (r"\n[ \t]*\n\s*", r"\n", r"[.!?…][\"')\]]*\s+|[\u3002\uff01\uff1f]", r"\s+")))
"""What a text is best cut behind, the best first."""
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True)
class Chunk:
    """Characters `start` to `end` of the document from `source`, which stand under the titles of `heading`."""

    source: str
    heading: str
    start: int
    end: int
    text: str

    @property
    def lead(self) -> str:
        """What is put before the text where it is embedded and searched: what it is about."""
        return f"{self.heading}\n\n" if self.heading else ""


def characters(text: str) -> Sequence[int]:
    """Lengths counted in characters."""
    return range(len(text))


def token_units(tokenizer: Any) -> Units:
    """Lengths counted in tokens.

    Raises:
        ModelError: the tokenizer does not tell where its tokens stand.
    """
    if not tokenizer.is_fast:
        message = f"the tokenizer of {tokenizer.name_or_path!r} does not tell where its tokens stand in a text"
        raise ModelError(message, hint="use chunk_unit: characters")

    def starts(text: str) -> list[int]:
        said = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        return [begin for begin, end in said["offset_mapping"] if end > begin]

    return starts


def chunks_of(document: Document, units: Units, size: int, overlap: int) -> list[Chunk]:
    """Chunks of at most `size` units; of two that one section was cut into the second begins about `overlap` units before the first's end.

    Every character of the document lies in a chunk; white space counts for nothing. `overlap` is less than half of `size`.
    """
    starts = units(document.text)
    return [
        Chunk(document.source, section.path, begin, end, document.text[begin:end])
        for section in document.sections()
        for begin, end in _spans(document.text, starts, (section.start, section.end), size, overlap)
    ]


def _spans(text: str, starts: Sequence[int], section: tuple[int, int], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    begin, last = section
    cut = _cut(text, starts, begin, last, size)
    while True:
        blank = _SPACE.match(text, cut, last)
        end = blank.end() if blank else cut
        yield begin, end
        if end >= last:
            return
        back = _back(text, starts, begin, cut, overlap) if overlap else end
        further = _cut(text, starts, back, last, size) if back > begin else cut
        begin, cut = (back, further) if further > end else (end, _cut(text, starts, end, last, size))


def _cut(text: str, starts: Sequence[int], begin: int, last: int, size: int) -> int:
    """Where the chunk that starts at `begin` ends: behind the last break of the best sort in its second half."""
    first = bisect_left(starts, begin)
    if bisect_left(starts, last) - first <= size:
        return last
    middle, limit = starts[first + (size + 1) // 2], starts[first + size]
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit


def _back(text: str, starts: Sequence[int], begin: int, cut: int, overlap: int) -> int:
    """Where the next chunk starts: `overlap` units before `cut`, at the beginning of a word, where one begins there."""
    first, behind = bisect_left(starts, begin), bisect_left(starts, cut)
    back = starts[max(first + 1, behind - overlap)] if behind > first + 1 else cut
    if back >= cut or text[back - 1].isspace():
        return min(back, cut)
    blank = _SPACE.search(text, back, cut)
    return blank.end() if blank and blank.end() < cut else back
