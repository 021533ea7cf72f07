"""Rows of which each may have several labels, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbtune.data.examples import Filled, fill
from nbtune.data.lists import list_in
from nbtune.data.rows import Row
from nbtune.data.templates import Template
from nbtune.errors import DataError, did_you_mean
from nbtune.metrics.several import NONE, labels_in, written

__all__ = ["fill_several", "several_of"]


def fill_several(rows: Sequence[Row], prompt: Template, completion: Template, part: str = "") -> list[Filled]:
    """The rows with their labels, divided by commas, "none" where there is none; a list in a column, and a text divided by commas, serve.

    Raises:
        DataError: as `fill`; or a label that holds a comma.
    """
    columns = list(completion.columns(rows[0]).values())
    plain = [{**row, **{name: _joined(row[name], f"{part + ' ' if part else ''}row {number}") for name in columns if name in row}}
             for number, row in enumerate(rows, start=1)]  # fmt: skip
    filled = fill(plain, prompt, completion, part)
    return [replace(item, row=row, completion=_written_like(item.completion)) for item, row in zip(filled, rows, strict=True)]


def _joined(value: object, where: str) -> object:
    if value == "":
        return NONE
    if isinstance(value, str) and value.strip().startswith("["):
        found = list_in(value)
        if found is None:
            message = f"{where}: {value.strip()!r:.60} begins like a list and is none"
            raise DataError(message, hint="give a list of labels, or labels divided by commas")
        value = found
    if not isinstance(value, list):
        return value
    odd = [item for item in value if not isinstance(item, str) or not item.strip() or "," in item or ";" in item]
    if odd:
        hint = "a label is a text that is not empty, without comma or semicolon, which divide them"
        raise DataError(f"{where} has the label {odd[0]!r:.60}", hint=hint)
    return written([item.strip() for item in value])


def _written_like(completion: str) -> str:
    """The labels in our own way, behind the white space that the completion begins with: a model learns to write them alike."""
    start = completion[: len(completion) - len(completion.lstrip())]
    return start + written(labels_in(completion))


def several_of(given: Mapping[str, Sequence[Filled]], listed: Sequence[str] | None) -> tuple[str, ...]:
    """All labels, sorted.

    Raises:
        DataError: a label that is not listed or that no training row has, or no label at all.
    """
    learned = {label for item in given.get("train") or given["all"] for label in labels_in(item.completion)}
    known = {label.strip() for label in listed} if listed else learned
    for part, items in given.items():
        for number, item in enumerate(items, start=1):
            stray = next((label for label in labels_in(item.completion) if label not in known), None)
            if stray is not None:
                where = f"{part} row {number}" if part != "all" else f"row {number}"
                why = "which labels does not list" if listed else "which no training row has"
                hint = did_you_mean(stray, sorted(known)) if listed else "list all of them in labels: of the task"
                raise DataError(f"{where} has the label {stray!r}, {why}", hint=hint)
    if not known:
        raise DataError("no row has a label", hint="check the completion: a list, or labels divided by commas")
    return tuple(sorted(known))
