"""An index, and the passages that a search of it has found, as static content; all texts are from documents and escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from nbtune_widgets.formats import count, figure, one_line, shown, size
from nbtune_widgets.markup import figures, join, messages, page, table

if TYPE_CHECKING:
    from nbtune.retrieval import Index, Passage, Passages

__all__ = ["index_html", "index_text", "passages_html", "passages_text"]

LENGTH: Final = 1200
HEADS: Final = ("", "score", "source", "passage")
_BY: Final = {"vector": "cosine", "text": "BM25 of words", "hybrid": "meaning and words, by reciprocal rank"}


def index_html(index: Index) -> str:
    """What is in an index, and what bringing it up to date has changed."""
    head = Markup('<p class="nbt-head"><span class="nbt-name">{}</span> <span class="nbt-dim">{}</span></p>')
    parts = [head.format(shown(index.name, 80), "index" if index.complete else "index, not finished"), figures(_figures(index))]
    parts += [messages(_changed(index), "note", ""), messages(index.notes, "note", "Note")]
    return page(f"Index {index.name}", join(parts))


def index_text(index: Index) -> str:
    """The same in lines."""
    state = "" if index.complete else " (not finished)"
    lines = [f"index {one_line(index.name)}{state}: " + ", ".join(f"{name} {value}" for name, value in _figures(index))]
    lines += [f"  {text}" for text in _changed(index)]
    return "\n".join([*lines, *(f"  note: {one_line(text, 400)}" for text in index.notes)])


def _figures(index: Index) -> list[tuple[str, str]]:
    return [
        ("documents", count(index.documents)),
        ("chunks", count(index.chunks)),
        ("cut to", index.cut),
        ("model", shown(index.model, 80)),
        ("on disk", size(index.size_bytes)),
    ]


def _changed(index: Index) -> list[str]:
    if index.changes is None:
        return []
    done = index.changes
    return [f"{done.embedded:,} texts embedded, {done.added:,} chunks added, {done.removed:,} taken out"]


def passages_html(passages: Passages) -> str:
    """A table of the passages, the best first."""
    rows = [
        (str(number), figure(item.score), _source(item), Markup('<div class="nbt-x">{}</div>').format(shown(item.text, LENGTH)))
        for number, item in enumerate(passages, start=1)
    ]
    caption = f"{shown(passages.query, 200)} ({_BY[passages.by]})"
    body = table(caption, HEADS, rows, numeric=frozenset({1})) if rows else messages([f"nothing was found for {caption}"], "note", "")
    return page("Passages found", body)


def passages_text(passages: Passages) -> str:
    """The same in lines."""
    lines = [f"{one_line(passages.query, 200)} ({_BY[passages.by]}): {len(passages)} passages"]
    return "\n".join([*lines, *(f"  {figure(item.score)}  {_source(item)}: {one_line(item.text, 160)}" for item in passages)])


def _source(item: Passage) -> str:
    where = one_line(item.source, 200)
    return f"{where}, {one_line(item.heading, 200)}" if item.heading else where
