"""A run as a column: the task's own prompt, asked of what the run learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.approaches.base import Asked, Cost, Setting
from nbtune.errors import RunError
from nbtune.run import Run, open_run
from nbtune.spec import Spec, option

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach
    from nbtune.task import Task

__all__ = ["KIND", "Tuned", "TunedSpec", "run_named"]


class TunedSpec(Spec):
    """Which run."""

    what: ClassVar[str] = "run option"

    run: Any = option(..., "name or id of the run, or the run itself", aliases=("name",))


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

    def called(self, options: TunedSpec) -> str:
        """By the run's name."""
        return f"run: {options.run if isinstance(options.run, str) else options.run.name}"

    def make(self, task: Task, options: TunedSpec, setting: Setting, label: str) -> Approach:
        """The run's model with its adapter on; waits for a run that is not over yet.

        Raises:
            RunError: the run failed, has nothing trained, or tells other labels apart than the task has.
        """
        run = run_named(options).wait()
        engine = run.engine()
        if engine.base.labels and engine.base.labels != task.head_labels:
            message = f"{label} tells {', '.join(engine.base.labels)} apart, and the labels of task {task.name!r} are others"
            raise RunError(message, hint="compare it on the task that it was trained on")
        notes = tuple(
            f"{label} was trained on task {name!r} with other rows or another template than this grid's"
            for each, name in run.learnt.items()
            if each != task.fingerprint
        )
        return Asked(
            label,
            task,
            engine,
            lambda prompt: prompt,
            run_id=run.id,
            cost=Cost.of(run.summary),
            notes=notes,
        )


KIND: Final = Tuned()
