"""A document as retrieval reads it: one text, and where its headings stand in it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Document", "Heading", "Section"]

_BETWEEN = " > "


@dataclass(frozen=True)
class Heading:
    """A heading of `level` 1 (the highest) to 6; its own words stand from `start` to `end`, which are the same for the page of a PDF."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True)
class Section:
    """Characters `start` to `end` of a document; `path` are the titles that they stand under, the highest first."""

    start: int
    end: int
    path: str


@dataclass(frozen=True)
class Document:
    """`source` says where it is from, `notes` what could not be read of it."""

    source: str
    text: str
    headings: tuple[Heading, ...] = ()
    notes: tuple[str, ...] = ()

    def sections(self) -> list[Section]:
        """The text cut before each heading, nothing of it left out; a heading with nothing below it goes with the next one."""
        found: list[Section] = []
        above: list[Heading] = []
        begin, body, path = 0, 0, ""
        for heading in self.headings:
            if self.text[body : heading.start].strip():
                found.append(Section(begin, heading.start, path))
                begin = heading.start
            body = heading.end
            above = [other for other in above if other.level < heading.level] + [heading]
            path = _BETWEEN.join(other.title for other in above if other.title)
        if self.text[begin:].strip():
            found.append(Section(begin, len(self.text), path))
        elif found:
            found[-1] = Section(found[-1].start, len(self.text), found[-1].path)
        return found
