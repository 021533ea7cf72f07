"""How a column does on each class: precision, recall and F1, and which classes it takes for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nbtune.errors import ComparisonError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.compare.comparison import Comparison

__all__ = ["OTHER", "confusion", "per_class"]

OTHER: Final = "(other)"
"""The column of outputs that are no label, which only generated answers can be."""


def per_class(comparison: Comparison, approach: str) -> pd.DataFrame:
    """precision, recall, f1 and support (rows that expect it) by label, 0 where nothing can be divided.

    Raises:
        ComparisonError: the task is none of classes, or there is no such column.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    outputs, expected = _pairs(comparison, approach)
    labels = list(comparison.labels)
    precision, recall, f1, support = precision_recall_fscore_support(expected, outputs, labels=labels, zero_division=0)
    found = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return pd.DataFrame(found, index=pd.Index(labels, name="label"))


def confusion(comparison: Comparison, approach: str) -> pd.DataFrame:
    """How many rows that expect a label (row of the frame) were answered by which (column); what is no label is counted as "(other)".

    Raises:
        ComparisonError: the task is none of classes, or there is no such column.
    """
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    outputs, expected = _pairs(comparison, approach)
    labels = list(comparison.labels)
    said = [text if text in labels else OTHER for text in outputs]
    names = [*labels, OTHER] if OTHER in said and OTHER not in labels else labels
    counts = confusion_matrix(expected, said, labels=names)[: len(labels)]
    return pd.DataFrame(counts, index=pd.Index(labels, name="expected"), columns=pd.Index(names, name="output"))


def _pairs(comparison: Comparison, approach: str) -> tuple[list[str], list[str]]:
    """(outputs, expected) of a column, without outer spaces."""
    if not comparison.labels or comparison.kind != "classification" or comparison.metric is None:
        kind = "inputs without answers" if comparison.metric is None else f"a task of kind {comparison.kind or 'unknown'}"
        message = f"this is a comparison on {kind}, which has no classes"
        raise ComparisonError(message, hint="compare on a task of kind classification")
    rows = [row for row in comparison.answers if row["approach"] == approach]
    if not rows:
        known = {str(row["approach"]) for row in comparison.rows}
        raise ComparisonError(f"there is no column {approach!r:.80}", hint=did_you_mean(str(approach), known))
    return [str(row["output"]).strip() for row in rows], [str(row["expected"]).strip() for row in rows]
