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
    what follows. `kind` and `labels` are the task's. `points` are records of `curve`.
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
    kind: str | None = field(default=None, repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    points: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

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
        """A row for each (test row, approach).

        Columns: row, approach, prompt, output, expected, correct, score, log_probabilities (by label), passages (records of text, source,
        heading, start, end, score of what stood before the prompt, the best first; None where nothing is looked up).
        """
        import pandas as pd

        return pd.DataFrame(list(self.answers))

    @property
    def curve(self) -> pd.DataFrame:
        """The learning curve, a row for each (approach, size) of the same test rows; without `train_sizes` it is empty.

        Columns: approach, train_rows (0: asked once, for it takes nothing from the training rows), score, ci_low, ci_high, seconds (to
        answer all rows), train_seconds, kind, run (id of what was trained for that size).
        """
        import pandas as pd

        names = ["approach", "train_rows", "score", "ci_low", "ci_high", "seconds", "train_seconds", "kind", "run"]
        return pd.DataFrame(list(self.points), columns=names)

    def per_class(self, approach: str) -> pd.DataFrame:
        """precision, recall, f1 and support by label, of a task of classes; of a column asked several times those of the first time.

        Raises:
            ComparisonError: the task is none of classes, or there is no such column.
        """
        from nbtune.compare.classes import per_class

        return per_class(self, approach)

    def confusion(self, approach: str) -> pd.DataFrame:
        """How many rows that expect a label (row) were answered by which (column), of a task of classes; asked several times: the first.

        Raises:
            ComparisonError: the task is none of classes, or there is no such column.
        """
        from nbtune.compare.classes import confusion

        return confusion(self, approach)

    def slices(self, by: str = "length", *, intervals: bool = True) -> pd.DataFrame:
        """A row for each (slice of the test rows, approach): slice, approach, rows, score, ci_low, ci_high.

        Args:
            by: "length" (quartiles of the prompts' characters), "label" (the expected one; the score is that of rows, of an F1 the share
                of right ones), or "contains:WORD" (prompts that hold it, and the others; case does not matter).
            intervals: 95 % intervals, too, which take a moment.

        Raises:
            ComparisonError: unknown `by`, no scores or no labels to slice by, or a word that no row or every row holds.
        """
        from nbtune.compare.slices import slices_by

        return slices_by(self, by, intervals=intervals)

    def plot(self, cost: str = "seconds") -> Any:
        """A plotly figure of the scores with their intervals against a cost.

        Args:
            cost: seconds (an answer), prompt_tokens, train_seconds, trainable_parameters, adapter_bytes, peak_memory_bytes, train_tokens,
                or train_rows (the learning curve).

        Raises:
            ComparisonError: unknown cost, or nothing to draw.
        """
        return view("comparison_figure")(self, cost)

    def to_html(self) -> str:
        """A whole page that stands by itself: no script, no network, light and dark."""
        return str(view("comparison_page")(self))

    def to_markdown(self) -> str:
        """Scores, costs, verdict, classes, disagreements and checks as Markdown, for a report or an issue."""
        return str(view("comparison_markdown")(self))

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
            "kind": self.kind,
            "labels": list(self.labels),
            "points": list(self.points),
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
        several = ("rows", "answers", "pairs", "verdict", "labels", "points")
        return cls(**{**record, **{name: tuple(record.get(name, ())) for name in several}})

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("comparison_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": self.table.to_string()}
