"""The look of static content, and the few HTML pieces that all views share; every text goes through Markup's escaping."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from nbtune_widgets.formats import shown

__all__ = ["figures", "join", "mark", "messages", "page", "table", "whole_page"]

_STATIC: Final = Path(__file__).parent / "static"


@functools.cache
def _style() -> Markup:
    return Markup((_STATIC / "content.css").read_text("utf-8").strip())  # noqa: S704  ours, not the user's


def page(label: str, body: Markup) -> str:
    """One self-contained piece of static content: a scoped style and a labelled group."""
    style = Markup("<style>{}</style>").format(_style())
    return str(Markup('<div class="nbt" role="group" aria-label="{}">{}{}</div>').format(shown(label, 200), style, body))


def whole_page(title: str, body: Markup) -> str:
    """A document by itself that follows the reader's theme; it may load and run nothing, whatever stands in it."""
    return str(
        Markup(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
            '<meta name="color-scheme" content="light dark">\n'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            "<title>{}</title>\n<style>html{{color-scheme:light dark}}body{{margin:24px auto;max-width:1080px;padding:0 16px}}</style>\n"
            "</head>\n<body>\n<main>{}</main>\n</body>\n</html>\n"
        ).format(shown(title, 200), body)
    )


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """Parts one after another."""
    return Markup(between).join(parts)  # noqa: S704  every caller gives a literal


def figures(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A row of named figures; without styles a line of "name value · name value"."""
    items = [Markup("<span><small>{} </small><b>{}</b></span>").format(name, value) for name, value in pairs]
    return Markup('<p class="nbt-figs">{}</p>').format(join(items, '<span class="nbt-sep"> · </span>'))


def mark(right: bool | None, words: tuple[str, str] = ("right", "wrong")) -> Markup:
    """Right or wrong by sign, colour and word; nothing where it is not known."""
    if right is None:
        return Markup("")
    kind, sign, word = ("ok", "✓", words[0]) if right else ("no", "✗", words[1])
    return Markup('<span class="nbt-{}" role="img" aria-label="{}" title="{}">{}</span>').format(kind, word, word, sign)


def messages(texts: Iterable[str], kind: str, word: str) -> Markup:
    """Paragraphs led by a word, such as "Warning", so that the kind is not told by colour alone."""
    items = [
        Markup('<p class="nbt-msg nbt-{}"><b>{}</b> {}</p>').format(kind, word, shown(text))
        if word
        else Markup('<p class="nbt-msg">{}</p>').format(shown(text))
        for text in texts
    ]
    return join(items)


def table(
    caption: str,
    heads: Sequence[str | Markup],
    rows: Iterable[Sequence[str | Markup]],
    *,
    numeric: frozenset[int] = frozenset(),
    best: frozenset[int] = frozenset(),
    named: bool = False,
) -> Markup:
    """A table with column heads; columns in `numeric` are set to the right, rows in `best` stand out.

    With `named` the first cell of a row is its head.
    """

    def cell(index: int, text: str | Markup, tag: str) -> Markup:
        heads_row = named and tag == "td" and index == 0
        scope = Markup(' scope="row"') if heads_row else Markup(' scope="col"') if tag == "th" else Markup("")
        tag = "th" if heads_row else tag
        css = Markup(' class="nbt-n"') if index in numeric else Markup("")
        return Markup("<{0}{1}{2}>{3}</{0}>").format(Markup(tag), scope, css, text)  # noqa: S704  th or td

    head = join(cell(index, text, "th") for index, text in enumerate(heads))
    stands_out = Markup(' class="nbt-best"')
    body = join(
        Markup("<tr{}>{}</tr>").format(
            stands_out if number in best else "", join(cell(index, text, "td") for index, text in enumerate(row))
        )
        for number, row in enumerate(rows)
    )
    title = Markup("<caption>{}</caption>").format(caption) if caption else Markup("")
    return Markup('<div class="nbt-scroll"><table class="nbt-t">{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        title, head, body
    )
