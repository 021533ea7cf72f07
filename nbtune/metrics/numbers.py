"""Numbers as texts: what a task of kind regression expects, and what a model has said."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nbtune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["errors_of", "number_in", "number_of", "numbers_of", "written_number"]

_NUMBER: Final = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.,]*\d)")
_FAR: Final = 1e3
"""Six digits still tell numbers apart that lie a thousandth of their size from one another."""
_EXACT: Final = 15
"""Digits that a float always keeps."""


def number_in(text: str) -> float | None:
    """The number that a text begins with ("3.5", "4 stars"); None where it begins with none."""
    found = _NUMBER.match(text)
    value = float(found[1]) if found else math.nan
    return value if math.isfinite(value) else None


def number_of(text: str) -> float | None:
    """The number that a text is, outer spaces aside; None where it is none or has anything beside it ("1,200", "3 apples")."""
    found = _NUMBER.fullmatch(text.strip())
    return number_in(found[1]) if found else None


def written_number(value: float, spread: float = math.inf) -> str:
    """The number as a text of at most six digits; of more where numbers that lie `spread` apart need them, as times in seconds do."""
    ratio = abs(value) / spread
    digits = min(_EXACT, 6 + int(math.log10(ratio))) if _FAR <= ratio < math.inf else 6
    return f"{value:.{digits}g}"


def numbers_of(outputs: Sequence[str], expected: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What was said and what is true, float64 [rows].

    A text that is no number counts as the farthest from the truth of all that is expected: who says nothing gains nothing by it.

    Raises:
        DataError: an expected text is no number.
    """
    import numpy as np

    true = [number_of(text) for text in expected]
    wrong = next((row for row, value in enumerate(true) if value is None), None)
    if wrong is not None:
        raise DataError(f"row {wrong} expects {expected[wrong]!r:.60}, which is no number", hint="use a metric of texts, or mend the row")
    truth = np.array(true, dtype=np.float64)
    low, high = (float(truth.min()), float(truth.max())) if len(truth) else (0.0, 0.0)
    said = [number_in(text) for text in outputs]
    filled = [(low if value - low > high - value else high) if found is None else found for found, value in zip(said, truth, strict=True)]
    return np.array(filled, dtype=np.float64), truth


def errors_of(outputs: Sequence[str], expected: Sequence[str]) -> list[float]:
    """The absolute error of each row.

    Raises:
        DataError: as `numbers_of`.
    """
    said, true = numbers_of(outputs, expected)
    return [float(value) for value in abs(said - true)]
