"""Zero-shot: the model as it is reads the prompt and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.approaches.base import Asked, Setting
from nbtune.approaches.calibrating import CalibrateSpec, texts_for

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach
    from nbtune.spec import Spec
    from nbtune.task import Task

__all__ = ["KIND", "ZeroShot", "ZeroShotSpec"]


class ZeroShotSpec(CalibrateSpec):
    """Whether it is calibrated."""

    what: ClassVar[str] = "zero-shot option"


class ZeroShot:
    """See the module's text."""

    name: ClassVar[str] = "zero-shot"
    summary: ClassVar[str] = "the prompt alone"
    spec: ClassVar[type[Spec]] = ZeroShotSpec

    def make(self, task: Task, options: ZeroShotSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with the task's own prompt.

        Raises:
            SpecError: it is to be calibrated, and no labels are scored.
        """
        known = texts_for(task, options, scoring=setting.scoring)
        return Asked(label, task, setting.engine(task), lambda prompt: prompt, calibrate_on=known)


KIND: Final = ZeroShot()
