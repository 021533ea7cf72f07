"""A comparison's result: one row an approach, all outputs side by side, and what was checked. Plain data, kept as one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from nbtune.errors import ComparisonError, NbtuneError
from nbtune.views import view

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison"]

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """`metric` is None where texts without answers were compared by eye.

    `rows` and `answers` are records of `table` and `outputs`; `checks` says what was verified, `warnings` what was found wrong,
    `notes` how the columns were asked. `pairs` are records of each two columns: a, b, difference (a - b), low, high, p_value,
    p_adjusted (Holm, over all pairs), detectable (the smallest difference that so many rows would tell). `verdict` says in sentences
    what follows.
    """

    task_name: str
    metric: str | None
    rows: tuple[Mapping[str, Any], ...]
    answers: tuple[Mapping[str, Any], ...] = field(repr=False)
    checks: list[str] = field(default_factory=list, repr=False)
    warnings: list[str] = field(default_factory=list, repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
    pairs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    verdict: tuple[str, ...] = field(default=(), repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """A row an approach, in the order asked.

        Columns: approach, <metric>, ci_low, ci_high, spread (standard deviation over seeds, where there are several), versus (the best
        other), difference, difference_low, difference_high, p_value, p_adjusted (Holm, over all pairs of columns), trainable_parameters,
        adapter_bytes, peak_memory_bytes, train_seconds, train_tokens (0 where nothing is trained), seconds (to answer all rows),
        prompt_tokens (mean a row), rows, kind (prompting, tuned, floor, other), break_even_rows (answers after which the training has been
        won back against the best of the longer prompts; None: never, or nothing was trained).
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def outputs(self) -> pd.DataFrame:
        """A row for each (test row, approach): row, approach, prompt, output, expected, correct, score, log_probabilities (by label)."""
        import pandas as pd

        return pd.DataFrame(list(self.answers))

    def save(self, path: str | Path) -> Path:
        """Writes it as JSON.

        Raises:
            ComparisonError: the file cannot be written.
        """
        target = Path(path).expanduser()
        record = {
            "format": _FORMAT,
            "task_name": self.task_name,
            "metric": self.metric,
            "rows": list(self.rows),
            "answers": list(self.answers),
            "checks": self.checks,
            "warnings": self.warnings,
            "notes": self.notes,
            "pairs": list(self.pairs),
            "verdict": list(self.verdict),
        }
        try:
            part = target.with_name(f".{target.name}.part")
            part.write_text(json.dumps(record, ensure_ascii=False, indent=1))
            part.replace(target)
        except OSError as error:
            message = f"the comparison cannot be written to {str(target)!r}: {error.strerror or error}"
            raise ComparisonError(message, hint="name a file in a folder that can be written") from error
        return target

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            ComparisonError: it is missing or something else.
        """
        try:
            record = json.loads(Path(path).expanduser().read_text())
        except (OSError, ValueError) as error:
            raise ComparisonError(f"the comparison {str(path)!r} cannot be read: {error}", hint="name a file that save wrote") from error
        if not isinstance(record, dict) or record.pop("format", None) != _FORMAT:
            raise ComparisonError(f"{str(path)!r} holds no comparison of this version", hint="name a file that save wrote")
        rows, answers = tuple(record.pop("rows")), tuple(record.pop("answers"))
        pairs, verdict = tuple(record.pop("pairs", ())), tuple(record.pop("verdict", ()))
        return cls(rows=rows, answers=answers, pairs=pairs, verdict=verdict, **record)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("comparison_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": self.table.to_string()}
