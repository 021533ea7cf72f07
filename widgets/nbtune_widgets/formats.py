"""Numbers as people read them, and untrusted text made safe to show; the same words in every view."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = [
    "NOTHING",
    "count",
    "distinct",
    "duration",
    "figure",
    "fine_duration",
    "in_use",
    "memory",
    "one_line",
    "plain",
    "rate",
    "share",
    "shown",
    "size",
    "tail",
]

NOTHING: Final = "\u2013"
"""Stands where there is no value."""

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_MINUTE: Final = 60
_HOUR: Final = 3600
_UNITS: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plain(value: Any) -> Any:
    """A table's cell as a Python value: numpy's scalars unpacked, every kind of missing value as None."""
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        try:
            value = value.item()
        except ValueError:
            return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def figure(value: float | None) -> str:
    """A loss or a score: three decimals below ten, else four significant digits."""
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 10_000:  # noqa: PLR2004
        return f"{value:.3g}"
    if value != 0 and abs(value) < 0.001:  # noqa: PLR2004
        return rate(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"  # noqa: PLR2004


def rate(value: float | None) -> str:
    """A learning rate: "2e-4", "9.8e-5", "0.01"."""
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else "NaN"
    if value == 0 or 0.01 <= abs(value) < 1000:  # noqa: PLR2004
        return f"{value:.3g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def count(value: float | None) -> str:
    """A count: exact to 99,999, then "134.5 M"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) < 100_000:  # noqa: PLR2004
        return f"{int(value):,}"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.2f} {unit}" if scaled < 10 else f"{scaled:.1f} {unit}"  # noqa: PLR2004
    return f"{int(value):,}"


def duration(seconds: float | None) -> str:
    """A time span: "0.4 s", "42 s", "1 min 43 s", "2 h 05 min"."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def fine_duration(seconds: float | None) -> str:
    """The time of one step, which may be short: "8.2 ms", "142 ms", "1.3 s"."""
    if seconds is None or not math.isfinite(seconds) or seconds >= 1:
        return duration(seconds)
    return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"  # noqa: PLR2004


def share(part: float | None) -> str:
    """A part of a whole: "97 %", and "<1 %" for what is there but rounds to nothing."""
    if part is None or not math.isfinite(part):
        return NOTHING
    whole = math.floor(100 * part + 0.5)  # halves up, as JavaScript rounds
    return "<1 %" if whole == 0 and part > 0 else f"{whole} %"


def memory(size: float | None) -> str:
    """Bytes in powers of ten: "820 MB", "1.9 GB"."""
    if size is None or not math.isfinite(size) or size <= 0:
        return NOTHING
    if size < 1e9:  # noqa: PLR2004
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB"


def size(number: float | None) -> str:
    """Bytes of a file or of memory: "62.4 kB", "12.3 MB", "1.2 GB"; nothing where there are none."""
    if number is None or not math.isfinite(number) or number <= 0:
        return NOTHING
    unit, word = next(((unit, word) for unit, word in _UNITS if number >= unit), (1.0, "B"))
    return f"{number / unit:.{int(unit > 1 and number < 100 * unit)}f} {word}"


def in_use(used: float | None, expected: float | None) -> str:
    """Memory in use, and what is expected to be while that is more: "1.2 GB of 1.5 GB expected"."""
    if expected is None or expected <= (used or 0):
        return memory(used)
    return f"{memory(used)} of {memory(expected)} expected" if used else f"{memory(expected)} expected"


def shown(text: object, limit: int = 2000) -> str:
    """Untrusted text without what could hide or reorder it (control and direction characters), cut at `limit` characters."""
    cleaned = _CONTROL.sub("\ufffd", str(text).replace("\r\n", "\n"))
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def tail(text: object, limit: int = 160) -> str:
    """The end of a prompt, where rows differ."""
    cleaned = shown(text, 10**9)
    return cleaned if len(cleaned) <= limit else "…" + cleaned[1 - limit :]


def distinct(texts: Sequence[str], limit: int = 200) -> list[str]:
    """Prompts without the words that all of them begin and end with (the template), each cut to its last `limit` characters."""
    unique = list(dict.fromkeys(texts))
    if len(unique) < 2:  # noqa: PLR2004
        return [tail(text, limit).strip("\n") for text in texts]
    before = _to_word(_shared(unique))
    rests = [text[len(before) :] for text in unique]
    after = _to_word(_shared([text[::-1] for text in rests]))
    cut = {text: rest[: len(rest) - len(after)].strip() for text, rest in zip(unique, rests, strict=True)}
    return [tail(cut[text], limit) or "…" for text in texts]


def _shared(texts: Sequence[str]) -> str:
    """What all begin with: what the first and the last in order begin with."""
    low, high = min(texts), max(texts)
    return low[: next((index for index, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))]


def _to_word(common: str) -> str:
    """A shared beginning, cut back to where a word ended."""
    return common[: max(map(common.rfind, " \n\t")) + 1]


def one_line(text: object, limit: int = 100) -> str:
    """Untrusted text on one line of plain text; line breaks become "⏎"."""
    return shown(shown(text, 10**9).strip("\n").replace("\n", " ⏎ "), limit)
