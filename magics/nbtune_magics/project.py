"""What this notebook has so far: its tasks by name. Runs live in their folders, so they are asked for where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbtune.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from nbtune import Task

__all__ = ["Project", "state"]


@dataclass
class Project:
    """The tasks of this kernel; `last` is the one defined last, which completion offers first."""

    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def last(self) -> Task | None:
        """The task defined last."""
        return next(reversed(self.tasks.values()), None)

    def add(self, task: Task) -> None:
        """Keeps `task` under its name, in place of an older one of that name."""
        self.tasks.pop(task.name, None)
        self.tasks[task.name] = task

    def task(self, name: str, variables: dict[str, Any]) -> Task:
        """The task of that name, or the one bound to the variable `name`; without a name the only one there is.

        Raises:
            SpecError: there is none of that name, or none or several to choose from.
        """
        from nbtune import Task

        if name in self.tasks:
            return self.tasks[name]
        bound = variables.get(name)
        if isinstance(bound, Task):
            return bound
        if name:
            hint = did_you_mean(name, self.tasks) if self.tasks else "define it in a cell first: %%task NAME --data FILE"
            raise SpecError(f"unknown task {name!r}", hint=hint)
        if len(self.tasks) == 1:
            return next(iter(self.tasks.values()))
        hint = "write --task NAME: " + ", ".join(self.tasks) if self.tasks else "define one first: %%task NAME --data FILE"
        raise SpecError("no task is named", hint=hint)


state = Project()
