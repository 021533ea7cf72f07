"""`%runs`: the runs of this folder as a table, what is done to one of them, and the queue they wait in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import Problem, RunError, SpecError, did_you_mean
from nbtune_magics.magic import Call, Magic
from nbtune_magics.output import bind, in_notebook, say, show

if TYPE_CHECKING:
    from nbtune import Run
    from nbtune_magics.steps import Steps

__all__ = ["RUNS"]

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
    word, *words = call.words
    action = _ACTIONS.get(word)
    if action is None:
        raise SpecError.of([Problem(f"%runs does not know {word!r}", did_you_mean(word, _ACTIONS), 1)])
    if len(words) != len(action.takes):
        usage = " ".join(("%runs", word, *action.takes))
        raise SpecError.of([Problem(f"%runs {word} takes {len(action.takes)} words, not {len(words)}", usage, 1)])
    return action.do(call, *words)
    yield  # a generator, as every magic's run is


def _find(name: str) -> Run:
    import nbtune

    runs = nbtune.runs()
    found = [run for run in runs if name in (run.id, run.name)]
    if not found:
        raise RunError(f"there is no run {name!r}", hint=did_you_mean(name, [word for run in runs for word in (run.name, run.id) if word]))
    return found[-1]


def _stop(_call: Call, name: str) -> None:
    run = _find(name)
    if run.status not in _ACTIVE:
        say(f"{run.name} is not running: it is {run.status}")
        return
    run.stop()
    say(f"{run.name}: stopping after this step, with a checkpoint")


def _attach(call: Call, name: str) -> Run:
    from nbtune_widgets.panel import RunPanel

    run = _find(name)
    RunPanel(run).show()
    bind(call.shell, run.name, run, "run")
    if in_notebook():
        call.shown.mark(run)
    return run


def _pause(_call: Call, name: str) -> None:
    run = _find(name)
    run.pause()
    say(f"{run.name}: standing still after this step; %runs resume {run.name} lets it go on")


def _resume(call: Call, name: str) -> Run | None:
    """Goes on, with its panel where it had ended."""
    run = _find(name)
    paused = run.status == "paused"
    run.resume()
    if paused:
        say(f"{run.name} goes on")
        return None
    return _attach(call, run.id)


def _queue(_call: Call) -> None:
    import nbtune

    show(nbtune.queue())


def _move(call: Call, name: str, position: str) -> None:
    import nbtune

    if not position.isdigit():
        raise SpecError.of([Problem(f"a place in the queue is a number, not {position!r}", "1 is next", 1)])
    nbtune.queue().move(_find(name), int(position))
    _queue(call)


def _cancel(_call: Call, name: str) -> None:
    import nbtune

    run = _find(name)
    nbtune.queue().cancel(run)
    say(f"{run.name}: waits no more")


@dataclass(frozen=True)
class _Action:
    """What follows `%runs`: the words it takes, what it is for, and what it does."""

    takes: tuple[str, ...]
    about: str
    do: Callable[..., Any]


_NAME: Final = "NAME_OR_ID"
_ACTIONS: Final = {
    "stop": _Action((_NAME,), "asks a run to stop after its step, with a checkpoint", _stop),
    "pause": _Action((_NAME,), "has a run stand still after its step, its model where it is", _pause),
    "resume": _Action((_NAME,), "lets a paused run go on, or a stopped, failed or interrupted one from its last checkpoint", _resume),
    "attach": _Action((_NAME,), "shows a run's panel, live while it goes on in whatever kernel or process, and binds its name", _attach),
    "queue": _Action((), "shows what is at work on each device and what waits for it", _queue),
    "move": _Action((_NAME, "PLACE"), "gives a waiting run another place in the queue; 1 is next", _move),
    "cancel": _Action((_NAME,), "takes a waiting run out of the queue", _cancel),
}


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
    return tuple(_ACTIONS)


def _describe(action: str) -> str:
    return _ACTIONS[action].about


RUNS = Magic(
    name="runs",
    usage="%runs   or   " + "   ".join(" ".join(("%runs", word, *action.takes)) for word, action in _ACTIONS.items()),
    about="The runs of this notebook's folder: what they are, how far they came, and how well.",
    body="",
    run=_run,
    spec=_nothing,
    names=_first_words,
    choice="actions",
    describe=_describe,
)
