"""The exception tree: every mistake a user can make ends in one of these.

NbtuneError
+-- SpecError        what was typed: a key, a value, a flag, YAML
+-- DataError        what was read: a file, a row, a template, a split
+-- ModelError       what was named: a model, its weights, its memory, its family
+-- RunError         what was asked of a run: a name, a folder, a state
+-- ComparisonError  what was asked of a comparison
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "ComparisonError",
    "DataError",
    "ModelError",
    "NbtuneError",
    "Problem",
    "RunError",
    "SpecError",
    "did_you_mean",
]


class NbtuneError(Exception):
    """A mistake that the user can mend: `message` says what happened, `hint` what to do.

    Notebooks show the two lines and no traceback, because the traceback would be ours, not theirs.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        lines = [f"{type(self).__name__}: {self.message}"]
        if self.hint:
            lines.append(f"  → {self.hint}")
        return lines


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a cell: where it stands (1-based line of the cell, None for the whole), what, and the mend."""

    message: str
    hint: str = ""
    line: int | None = None


class SpecError(NbtuneError):
    """What was typed is wrong; holds every problem found, each with its line."""

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems: tuple[Problem, ...] = tuple(problems) or (Problem(message, hint),)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> SpecError:
        """One error out of all `problems` (at least one), in the order of their lines."""
        ordered = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        if len(ordered) == 1:
            only = ordered[0]
            where = f"line {only.line}: " if only.line is not None else ""
            return cls(where + only.message, hint=only.hint, problems=ordered)
        lines = [f"{len(ordered)} problems"]
        for problem in ordered:
            where = f"line {problem.line}: " if problem.line is not None else ""
            lines.append(f"  {where}{problem.message}" + (f" → {problem.hint}" if problem.hint else ""))
        return cls("\n".join(lines), problems=ordered)


class DataError(NbtuneError):
    """The data, a template or a split cannot be used as it stands."""


class ModelError(NbtuneError):
    """A model cannot be found, loaded, or used that way."""


class RunError(NbtuneError):
    """A run cannot be found, opened, or do what was asked."""


class ComparisonError(NbtuneError):
    """A comparison cannot be made, saved or opened."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the likeliest of `known`, or all of them where none is near (at most twelve)."""
    options = sorted(set(known))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not options:
        return "there is none yet"
    listed = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")  # noqa: PLR2004
    return f"known: {listed}"
