"""Lists that a table's file keeps as text: pandas writes a column of lists as Python or numpy shows them, others as JSON."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from itertools import pairwise
from typing import Any, Final

__all__ = ["list_in"]

_WITHOUT_COMMA: Final = re.compile(r"['\"\d]\s+['\"\d]")


def list_in(text: str) -> list[Any] | None:
    """The list that a text is, in JSON, as Python writes one or as numpy does, without commas; None where it is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for read in (json.loads, _as_python):
        try:
            found = read(text)
        except (ValueError, SyntaxError, tokenize.TokenError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    return None


def _as_python(text: str) -> Any:
    """As Python reads it, but that two values beside one another are two: 'a' 'b' would be 'ab'."""
    if _WITHOUT_COMMA.search(text) is None:
        return ast.literal_eval(text)
    apart = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    parts = [part for part in tokenize.generate_tokens(io.StringIO(text).readline) if part.type not in apart]
    values = (tokenize.STRING, tokenize.NUMBER)
    commas = ["," if one.type in values and other.type in values else "" for one, other in pairwise(parts)]
    return ast.literal_eval(" ".join(f"{part.string}{comma}" for part, comma in zip(parts, [*commas, ""], strict=True)))
