"""Zero-shot: the model as it is reads the prompt and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.approaches.base import Approach, Setting
from nbtune.spec import Spec

if TYPE_CHECKING:
    from nbtune.task import Task

__all__ = ["KIND", "ZeroShot", "ZeroShotSpec"]


class ZeroShotSpec(Spec):
    """Nothing to choose."""

    what: ClassVar[str] = "zero-shot option"


class ZeroShot:
    """See the module's text."""

    name: ClassVar[str] = "zero-shot"
    summary: ClassVar[str] = "the prompt alone"
    spec: ClassVar[type[Spec]] = ZeroShotSpec

    def make(self, task: Task, options: ZeroShotSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with the task's own prompt."""
        return Approach(label, task, setting.engine(task), lambda prompt: prompt)


KIND: Final = ZeroShot()
