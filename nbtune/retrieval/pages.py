"""Web pages that the user allows to be fetched: one request each, no scripts, nothing sent but the address."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from nbtune.errors import DataError

if TYPE_CHECKING:
    from nbtune.retrieval.parsing import Kind

__all__ = ["fetched", "is_address"]

_SECONDS: Final = 30
_MOST: Final = 50_000_000
"""Bytes of a page."""
_KINDS: Final[dict[str, Kind]] = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/plain": "text",
    "text/markdown": "markdown",
    "application/pdf": "pdf",
}


def is_address(entry: str | Path) -> bool:
    """Whether it is an address and not a path."""
    return isinstance(entry, str) and "://" in entry


def fetched(address: str) -> tuple[Kind, bytes]:
    """What stands at an address.

    Raises:
        DataError: it is no http(s) address, cannot be reached, is too large, or of a kind that cannot be read.
    """
    from urllib.request import Request, urlopen

    if urlsplit(address).scheme not in ("http", "https"):
        raise DataError(f"{address!r:.120} is no http or https address", hint="name a file, or an address that begins with https://")
    request = Request(address, headers={"User-Agent": "nbtune"})  # noqa: S310  its scheme is looked at above
    try:
        with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310  the same
            said = answer.headers.get_content_type()
            raw = bytes(answer.read(_MOST + 1))
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"{address:.200} cannot be fetched: {error}", hint="look at it in a browser, save it, and name the file") from error
    if len(raw) > _MOST:
        raise DataError(f"{address:.200} has more than {_MOST:,} bytes", hint="save it, and name the file")
    if said not in _KINDS:
        raise DataError(f"{address:.200} is {said}, which cannot be read", hint=f"known: {', '.join(_KINDS)}")
    return _KINDS[said], raw
