"""A run at several strengths, as a table and as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nbtune_widgets.formats import NOTHING, shown
from nbtune_widgets.markup import page, table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["strength_html", "strength_text"]


def strength_html(found: pd.DataFrame, run: str) -> str:
    """A table; the retained text's loss also as perplexity."""
    heads, rows = _rows(found)
    title = f"{shown(run, 80)} between its base (0) and what was trained (1)"
    return page(f"strengths of {run}", table(title, heads, rows, numeric=frozenset(range(len(heads)))))


def strength_text(found: pd.DataFrame, run: str) -> str:
    """The same in lines."""
    heads, rows = _rows(found)
    lines = ["  ".join(f"{cell:>{max(9, len(head))}}" for cell, head in zip(row, heads, strict=True)) for row in [tuple(heads), *rows]]
    return "\n".join([f"{shown(run, 80)} between its base (0) and what was trained (1)", *lines])


def _rows(found: pd.DataFrame) -> tuple[list[str], list[tuple[str, ...]]]:
    metric = next(name for name in found.columns if name not in ("strength", "retained_loss"))
    heads = ["strength", f"{metric} on dev"]
    retained = "retained_loss" in found.columns
    if retained:
        heads += ["retained loss", "its perplexity"]
    rows = []
    for row in found.to_dict("records"):
        cells = [f"{row['strength']:g}", f"{row[metric]:.3f}"]
        if retained:
            loss = float(row["retained_loss"])
            cells += [f"{loss:.3f}", f"{math.exp(loss):,.1f}" if loss < 50 else NOTHING]  # noqa: PLR2004  beyond that it is no figure
        rows.append(tuple(cells))
    return heads, rows
