"""A run trained again by its own spec on fewer rows, as a run of its own with a folder of its own, kept for the next time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import RunError

if TYPE_CHECKING:
    from nbtune.run import Run
    from nbtune.task import Task

__all__ = ["trained_on"]

_LOOK: Final = 0.5
_NAME: Final = 48
_OWN: Final = frozenset({"id", "name", "task"})
"""What of a spec is the run's own, not how it is trained."""


def trained_on(part: Task, run: Run, task: Task, report: Callable[[str], None]) -> Run:
    """The run that learns `part` of the rows of `task` as `run` has learnt all of them; one that is there already is taken.

    Raises:
        RunError: the run was not made by its spec from this task's rows alone, or its model was an object.
        NbtuneError: what made the training fail.
    """
    from nbtune.run import runs

    _refuse(run, task)
    name = f"{run.name[:_NAME]}_{len(part.train)}_rows"
    same = (one for one in reversed(runs()) if one.name == name and one.status == "finished" and _how(one) == _how(run))
    known = next((one for one in same if one.task.fingerprint == part.fingerprint), None)
    if known is not None:
        return known
    started = _start(run, part, name)
    try:
        while True:
            try:
                return started.wait(timeout=_LOOK)
            except TimeoutError:
                report(f"{len(part.train)} training rows: training {run.name}{_steps(started)}")
    except KeyboardInterrupt:
        started.stop()
        raise


def _refuse(run: Run, task: Task) -> None:
    spec = run.spec
    if task.fingerprint not in run.learnt or run.task.fingerprint != task.fingerprint:
        raise RunError(f"run {run.name} was trained on other rows than this task's", hint="train it on this task")
    made = "a fork" if spec.get("parent") else "combined of other runs" if spec.get("combined") else ""
    if made:
        message = f"run {run.name} is {made}, and its spec alone does not make it again"
        raise RunError(message, hint="compare a run that was trained at once")
    if spec.get("bound"):
        raise RunError(f"the model of run {run.name} was an object of a notebook", hint="train it from a model's name or folder")


def _how(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.spec.items() if key not in _OWN}


def _start(run: Run, part: Task, name: str) -> Run:
    from nbtune.start import finetune, spec_of
    from nbtune.store import RunFolder

    values = spec_of(RunFolder(run.folder)).model_dump(mode="python")
    options = {key: value for key, value in values.items() if value is not None and key not in ("name", "task")}
    return finetune(run.method, task=part, name=name, **options)


def _steps(run: Run) -> str:
    """How far it is, in words."""
    total = done = 0
    for event in run.events():
        total, done = getattr(event, "total_steps", total), max(done, getattr(event, "step", 0) or 0)
    return f", step {done} of {total}" if total else f" ({run.status})"
