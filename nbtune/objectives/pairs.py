"""Pairs: the class of two texts that an encoder reads together, each in its own segment (Devlin et al. 2019, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import SpecError
from nbtune.objectives.classification import Classification

if TYPE_CHECKING:
    from nbtune.models.loading import Source
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Pairs"]


class Pairs(Classification):
    """Classification of two texts; a task with `text_pair` is read so by `classification` and `regression`, too."""

    name: ClassVar[str] = "pairs"
    summary: ClassVar[str] = "a new head over the classes of two texts; encoders read them as two, decoders one after the other"

    def source(self, source: Source, task: Task) -> Source:
        """The model with a head over the task's labels.

        Raises:
            SpecError: the task has one text, or no labels.
            ModelError: the model is an object of the user's.
        """
        if task.spec.text_pair is None:
            message = f"objective pairs reads two texts, and task {task.name!r} has one"
            raise SpecError(message, hint="give text_pair: in the task, the template of the second, or use objective classification")
        return super().source(source, task)


OBJECTIVE: Final = Pairs()
