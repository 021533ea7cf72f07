"""`%runs`: the runs of this folder as a table; `%runs stop ID` asks one to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import Problem, RunError, SpecError, did_you_mean
from nbtune_magics.magic import Call, Magic
from nbtune_magics.output import say, show

if TYPE_CHECKING:
    from nbtune import Run
    from nbtune_magics.steps import Steps

__all__ = ["RUNS"]

ACTIONS: Final = ("stop",)
_ACTIVE: Final = ("queued", "running", "paused")
_HEADS: Final = ("id", "name", "method", "model", "task", "status", "steps", "metric", "seconds")


@dataclass(frozen=True)
class RunRow:
    """One run as a line of the table, all as text."""

    cells: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> RunRow:
        """What is known of `run` by now."""
        summary = run.summary or {}
        scores = summary.get("scores") or {}
        metric = ", ".join(f"{name} {_number(value)}" for name, value in scores.items())
        model, task = (run.spec.get(key) for key in ("model", "task"))
        cells = (run.id, run.name, run.method, model, task, run.status, summary.get("steps"), metric, summary.get("seconds"))
        return cls(tuple(_number(cell) for cell in cells))


def _run(call: Call) -> Steps[Any]:
    call.refuse()
    import nbtune

    if not call.words:
        found = nbtune.runs()
        _table([RunRow.of(run) for run in found])
        return None
    action, *names = call.words
    if action not in ACTIONS:
        raise SpecError.of([Problem(f"%runs does not know {action!r}", did_you_mean(action, ACTIONS), 1)])
    if len(names) != 1:
        raise SpecError.of([Problem(f"%runs {action} takes one run, not {len(names)}", f"%runs {action} NAME_OR_ID", 1)])
    _ACTIONS[action](_find(names[0]))
    return None
    yield  # a generator, as every magic's run is


def _find(name: str) -> Run:
    import nbtune

    runs = nbtune.runs()
    found = [run for run in runs if name in (run.id, run.name)]
    if not found:
        raise RunError(f"there is no run {name!r}", hint=did_you_mean(name, [word for run in runs for word in (run.name, run.id) if word]))
    return found[-1]


def _stop(run: Run) -> None:
    if run.status not in _ACTIVE:
        say(f"{run.name} is not running: it is {run.status}")
        return
    run.stop()
    say(f"{run.name}: stopping after this step, with a checkpoint")


_ACTIONS: Final[dict[str, Callable[[Run], None]]] = {"stop": _stop}


def _table(rows: Sequence[RunRow]) -> None:
    if not rows:
        say("there is no run yet")
        return
    grid = [_HEADS, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in grid]
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in _HEADS)
    body = "".join("<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row.cells) + "</tr>" for row in rows)
    show(None, html=f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", text="\n".join(lines))


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nothing(_words: tuple[str, ...]) -> None:
    return None


def _first_words() -> tuple[str, ...]:
    return ACTIONS


def _describe(_action: str) -> str:
    return "asks a run to stop after its step, with a checkpoint"


RUNS = Magic(
    name="runs",
    usage="%runs   or   %runs stop NAME_OR_ID",
    about="The runs of this notebook's folder: what they are, how far they came, and how well.",
    body="",
    run=_run,
    spec=_nothing,
    names=_first_words,
    choice="actions",
    describe=_describe,
)
