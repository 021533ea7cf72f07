"""A run as a column: the task's own prompt, or what a prompting approach makes of it, asked of what the run learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.approaches.base import Asked, Cost, Setting
from nbtune.data.examples import row_key
from nbtune.errors import NbtuneError, RunError, SpecError
from nbtune.run import Run, open_run
from nbtune.spec import Spec, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nbtune.approaches.base import Approach
    from nbtune.inference import Engine
    from nbtune.task import Task

__all__ = ["KIND", "Tuned", "TunedSpec", "run_named"]


class TunedSpec(Spec):
    """Which run."""

    what: ClassVar[str] = "run option"

    run: Any = option(..., "name or id of the run, or the run itself", aliases=("name",))
    step: int | None = option(None, "the checkpoint of this step, in the place of the last", ge=0)
    strength: float = option(1.0, "how much of what was trained counts: 0 is the base, 1 what was trained", ge=0, le=2)
    prompt: Any = option(None, "approach by which it is asked, in the place of the task's prompt alone, such as {few-shot: {k: 4}}")


def run_named(options: TunedSpec) -> Run:
    """The run that is meant.

    Raises:
        RunError: there is none of that name.
    """
    return options.run if isinstance(options.run, Run) else open_run(str(options.run))


class Tuned:
    """See the module's text."""

    name: ClassVar[str] = "run"
    summary: ClassVar[str] = "a fine-tuned model"
    spec: ClassVar[type[Spec]] = TunedSpec
    asks_base: ClassVar[bool] = False

    def called(self, options: TunedSpec) -> str:
        """By the run's name, and what is not as usual."""
        from nbtune.approaches import label_of, wanted

        said = [f"run: {options.run if isinstance(options.run, str) else options.run.name}"]
        said += [f"step {options.step}"] if options.step is not None else []
        said += [f"strength {options.strength:g}"] if options.strength != 1 else []
        said += [label_of(*wanted(options.prompt))] if options.prompt is not None else []
        return ", ".join(said)

    def make(self, task: Task, options: TunedSpec, setting: Setting, label: str) -> Approach:
        """The run's model with its adapter on; waits for a run that is not over yet.

        Raises:
            RunError: the run failed, has nothing trained, no such checkpoint or strength, or tells other labels apart than the task has.
            SpecError: it is to be asked by what prompts no model.
        """
        _refuse_unprompted(options)
        run = run_named(options).wait()
        engine, unasked = _of_set(run.engine(step=options.step, strength=options.strength), task, label)
        from nbtune.approaches import approach_of

        if engine.base.labels and engine.base.labels != task.head_labels:
            message = f"{label} tells {', '.join(engine.base.labels)} apart, and the labels of task {task.name!r} are others"
            raise RunError(message, hint="compare it on the task that it was trained on")
        warnings = (*_warnings(run, task, label), *unasked)
        cost = _cost(run, options.step)
        if options.prompt is None:
            return Asked(label, task, engine, lambda prompt: prompt, run_id=run.id, cost=cost, warnings=warnings)
        inner = approach_of(options.prompt, task, replace(setting, tuned=engine))
        cost, warnings = Cost.sum([cost, inner.cost]), (*warnings, *inner.warnings)
        return replace(inner, label=label, run_id=run.id, cost=cost, warnings=warnings)


def _warnings(run: Run, task: Task, label: str) -> tuple[str, ...]:
    """Of what else than the task's own rows it has learnt, and whether rows asked are among that."""
    others = [name for each, name in run.learnt.items() if each != task.fingerprint]
    if not others:
        return ()
    found = [f"{label} was trained on task {name!r} with other rows or another template than this grid's" for name in others]
    learnt = [item.row for item in (*run.task.train, *run.task.dev) if not run.task.is_held_out(item)]
    keys = {row.get("source") if run.task.mixes else row_key(row) for row in learnt}
    texts = _asked(task, learnt)
    known = sum(row_key(item.row) in keys or item.prompt in texts for item in task.test)
    if known:
        found.append(f"{label}: {known} of the rows asked were among those that it was trained on: its score says nothing of new rows")
    return tuple(found)


def _asked(task: Task, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The prompts that a task makes of rows of another one, in which other columns and types do not matter; none where it can make none."""
    try:
        return set(task.prompts(rows)) if rows else set()
    except NbtuneError:
        return set()


def _of_set(engine: Engine, task: Task, label: str) -> tuple[Engine, tuple[str, ...]]:
    """The engine as it asks a task that is one of those mixed in what the run learnt; a warning where it has none of the task's own."""
    sets = engine.encoder.sets
    if not sets or task.mixes:
        return engine, ()
    if task.name in sets:
        return replace(engine, encoder=engine.encoder.asking(task.name)), ()
    message = f"{label} has a prompt for each of {', '.join(sets)}: task {task.name!r} is none of these, and is asked with their mean"
    return engine, (message,)


def _refuse_unprompted(options: TunedSpec) -> None:
    """Refuses what asks no model of the setting's."""
    from nbtune.approaches import get, wanted

    if options.prompt is None:
        return
    name, _ = wanted(options.prompt)
    if not getattr(get(name), "asks_base", True):
        raise SpecError(f"a run is not asked by {name}", hint="prompt: {few-shot: {k: 4}}, or another approach that prompts a model")


def _cost(run: Run, step: int | None) -> Cost:
    """What the run took; up to a step, where it is asked as it was then."""
    cost = Cost.of(run.summary)
    if step is None:
        return cost
    history = run.history["seconds"].dropna(), run.history["num_tokens"].dropna()
    seconds, tokens = (column[column.index <= step] for column in history)
    return replace(cost, train_seconds=float(seconds.max()) if len(seconds) else 0.0, train_tokens=int(tokens.max()) if len(tokens) else 0)


KIND: Final = Tuned()
