"""Rows as plain values: what every reader hands over, whatever it read from.

A row is a dict of column to text, number, bool, None, list or dict, so that it survives JSON unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from nbtune.errors import DataError

__all__ = ["Row", "canonical", "plain_rows", "plain_value"]

Row = dict[str, Any]
_SHOWN: Final = 6


def plain_rows(rows: Iterable[object], *, where: str = "row", lines: Sequence[int] | None = None) -> list[Row]:
    """The rows with plain values and the same columns throughout.

    Args:
        rows: what should be objects of column to value.
        where: what `lines` counts, for messages: "row" or "line".
        lines: the number of each row as the user counts them; left out, from 1.

    Raises:
        DataError: no rows, a row that is not an object, columns that differ, text that is no Unicode.
    """
    found: list[Row] = []
    for position, row in enumerate(rows):
        place = f"{where} {lines[position] if lines is not None else position + 1}"
        found.append(_plain_row(row, place))
        if found[-1].keys() != found[0].keys():
            raise _differing(found[0], found[-1], place)
    if not found:
        msg = "the data has no rows"
        raise DataError(msg, hint="give at least a handful of examples")
    return found


def plain_value(value: Any, place: str = "") -> Any:
    """The value as JSON knows it: missing ones (None, NaN, NaT, NA) become None, dates and decimals text, arrays lists.

    Raises:
        DataError: text with half a surrogate pair, which no file and no tokenizer can hold.
    """
    if isinstance(value, str):
        return _checked_text(str(value), place)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else (None if math.isnan(value) else str(value))
    if isinstance(value, Mapping):
        return {_checked_text(str(key), place): plain_value(item, place) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(item, place) for item in value]
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy scalars and arrays
        inner = value.tolist()
        return str(inner) if isinstance(inner, type(value)) else plain_value(inner, place)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", errors="replace")
    return _checked_text(str(value), place)


def canonical(row: Mapping[str, Any], columns: Iterable[str]) -> str:
    """One text that is the same for equal values of `columns`, whatever the order of rows or columns."""
    return json.dumps({name: row[name] for name in sorted(columns)}, ensure_ascii=False, sort_keys=True)


def _plain_row(row: object, place: str) -> Row:
    if not isinstance(row, Mapping):
        msg = f"{place} is not an object of column and value but {type(row).__name__}: {str(row)[:60]!r}"
        raise DataError(msg, hint='write each row as {"text": "...", "label": "..."}')
    if not row:
        msg = f"{place} has no columns"
        raise DataError(msg, hint="remove it, or give it the columns of the others")
    plain: Row = {}
    for key, value in row.items():
        name = str(key)
        if not name.strip():
            msg = f"{place} has a column without a name"
            raise DataError(msg, hint="name every column")
        if name in plain:
            msg = f"{place} has two columns named {name!r}"
            raise DataError(msg, hint="rename one of them")
        plain[name] = plain_value(value, f"{place}, column {name!r}")
    return plain


def _differing(first: Row, row: Row, place: str) -> DataError:
    missing = [name for name in first if name not in row]
    more = [name for name in row if name not in first]
    parts = [f"lacks {_listed(missing)}"] if missing else []
    parts += [f"has {_listed(more)}, which the first row has not"] if more else []
    return DataError(
        f"columns differ: {place} " + " and ".join(parts), hint="give every row the same columns (null where there is no value)"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _checked_text(text: str, place: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"{place or 'a value'} holds half a surrogate pair at character {error.start + 1}, which is no Unicode text"
        raise DataError(msg, hint="clean the text: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')") from None
    return text
