"""Instruction tuning: completions of many tasks at once, each asked in several ways, so that a task is answered that was never trained.

Wei et al. 2022, https://arxiv.org/abs/2109.01652. The loss is that of supervised fine-tuning; what is more is the mixture of rows
(`nbtune.instructions`) and that each set is scored on its own, before and after, those held out among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import SpecError
from nbtune.objectives.sft import Sft

if TYPE_CHECKING:
    from nbtune.models.loading import Source
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Instruction"]


class Instruction(Sft):
    """See the module's text."""

    name: ClassVar[str] = "instruction"
    summary: ClassVar[str] = "to write the completions of several tasks, each asked in several ways; whole tasks are held out"

    def source(self, source: Source, task: Task) -> Source:
        """The model as it is: it writes already.

        Raises:
            SpecError: the task is not one of instructions.
        """
        if not task.mixes:
            message = f"objective instruction learns several tasks at once, and {task.name!r} is one"
            raise SpecError(message, hint="mix some: %%instructions NAME, or nbtune.instructions({...})")
        return source


OBJECTIVE: Final = Instruction()
