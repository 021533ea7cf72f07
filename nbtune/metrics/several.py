"""Several labels in one text, as a task of kind multi-label reads and writes them: divided by commas, in the order of the task's labels."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NONE", "labels_in", "written"]

NONE = "none"
"""What is written of a row that has none of the labels."""


def labels_in(text: str) -> list[str]:
    """The labels that a text names, each once, in its order; none in an empty text or in "none"."""
    found = dict.fromkeys(part.strip() for part in text.replace(";", ",").split(","))
    return [label for label in found if label and label.casefold() != NONE]


def written(labels: Sequence[str]) -> str:
    """The text that names these labels."""
    return ", ".join(labels) or NONE
