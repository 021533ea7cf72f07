"""Files as documents: plain text, Markdown, HTML (read as Markdown, without what a reader does not see) and PDF, a page a section."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, Final, Literal

from nbtune.data.files import decoded
from nbtune.errors import DataError
from nbtune.retrieval.documents import Document, Heading

__all__ = ["Kind", "parse"]

Kind = Literal["text", "markdown", "html", "pdf"]
_TITLE: Final = 120
"""Characters of a heading that are kept."""
_UNSEEN: Final = ("script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "nav", "footer", "head", "title")
_HIDDEN: Final = "[hidden], [aria-hidden=true], [style*='display:none' i], [style*='display: none' i], [style*='visibility:hidden' i]"


def parse(source: str, raw: bytes, kind: Kind) -> Document:
    """The document in a file's bytes.

    Raises:
        DataError: it is damaged, encrypted, scanned, or no text.
    """
    return _PARSERS[kind](source, raw)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(source: str, raw: bytes) -> str:
    text = _lines(decoded(raw, source))
    if "\0" in text:
        raise DataError(f"{source} is no text: it holds NUL bytes", hint="give txt, md, html or pdf files")
    return text


def _text(source: str, raw: bytes) -> Document:
    return Document(source, _plain(source, raw))


def _markdown(source: str, raw: bytes) -> Document:
    text = _plain(source, raw)
    return Document(source, text, tuple(_headings(text)))


def _headings(text: str) -> Iterator[Heading]:
    """The headings of Markdown, none of those that only look like one inside a block of code."""
    from markdown_it import MarkdownIt

    lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    for token, inner in pairwise(MarkdownIt("commonmark").parse(text)):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            begin, end = (min(lines[number], len(text)) for number in token.map)
            words = "".join(child.content for child in inner.children or () if child.type in ("text", "code_inline"))
            yield Heading(begin, end, int(token.tag[1:]), _title(words))


def _title(words: str) -> str:
    return " ".join(words.split())[:_TITLE]


def _html(source: str, raw: bytes) -> Document:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    try:
        soup = BeautifulSoup(raw, "html.parser")
        title = _title(soup.title.get_text()) if soup.title is not None else ""
        for tag in [*soup.find_all(_UNSEEN), *soup.select(_HIDDEN)]:
            tag.decompose()
        converter = MarkdownConverter(
            heading_style="ATX", bullets="-", strip=["a", "img"], escape_asterisks=False, escape_underscores=False, escape_misc=False
        )
        text = converter.convert_soup(soup)
    except RecursionError:
        raise DataError(f"{source} is nested too deeply to be read", hint="save the page again, or as text") from None
    text = re.sub(r"\n{3,}", "\n\n", _lines(text).replace("\0", "")).strip() + "\n"
    headings = tuple(_headings(text))
    if title and text.strip() and all(heading.level > 1 for heading in headings):
        text = f"# {title}\n\n{text}"
        headings = tuple(_headings(text))
    return Document(source, text, headings)


def _pdf(source: str, raw: bytes) -> Document:
    from pypdf import PasswordType, PdfReader

    with _silent("pypdf"):
        try:
            reader = PdfReader(io.BytesIO(raw))
            opened = not reader.is_encrypted or reader.decrypt("") != PasswordType.NOT_DECRYPTED
            pages = [page.extract_text() for page in reader.pages] if opened else []
        except Exception as error:  # a damaged file makes pypdf raise all sorts
            message = f"{source} cannot be read as a PDF: {type(error).__name__}: {str(error)[:120]}"
            raise DataError(message, hint="open it in a viewer and save it again") from error
    if not opened:
        raise DataError(f"{source} is encrypted", hint="save it without a password")
    texts = [_lines(page).replace("\0", "").strip() + "\n\n" for page in pages]
    blank = sum(not text.strip() for text in texts)
    if blank == len(texts):
        message = f"{source} has {len(texts)} pages and no text: it was scanned, or holds pictures alone"
        raise DataError(message, hint="recognise its text first (OCR), and save that")
    starts = [0, *accumulate(map(len, texts))]
    headings = tuple(Heading(start, start, 1, f"page {number}") for number, start in enumerate(starts[:-1], start=1))
    notes = (f"{source}: {blank} of {len(texts)} pages have no text",) if blank else ()
    return Document(source, "".join(texts), headings, notes)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """What a library warns of while it mends a file is not for a notebook's user."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


_PARSERS: Final[dict[Any, Callable[[str, bytes], Document]]] = {"text": _text, "markdown": _markdown, "html": _html, "pdf": _pdf}
