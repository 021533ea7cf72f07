"""What a run is expected to need: by its estimate at first, and set right by what its first steps needed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nbtune.events import Estimated, Event, Note
from nbtune.models.device import available_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from nbtune.estimate import Estimate
    from nbtune.training.memory import PeakMemory
    from nbtune.training.step import Done

__all__ = ["MEASURED_STEPS", "Forecast"]

MEASURED_STEPS: Final = 3
"""Steps after which the estimate is set right; the first warms up, so its seconds do not count."""


class Forecast:
    """Follows a run's first steps. `told` is what was expected last; `in_memory` bytes of what it counts were there before the run."""

    def __init__(self, estimate: Estimate, memory: PeakMemory, device: torch.device, *, in_memory: int = 0) -> None:
        self._estimate, self.memory, self._device = estimate, memory, device
        seconds = math.nan if estimate.seconds_per_epoch is None else estimate.seconds_per_epoch
        self.told = Estimated(
            peak_memory_bytes=max(memory.before, memory.before + estimate.peak_memory_bytes - in_memory), seconds_per_epoch=seconds
        )
        self._steps: list[Done] = []

    def add(self, done: Done) -> Iterator[Event]:
        """Takes a step in; after the third tells what is expected now, and warns where that is more than there is."""
        if len(self._steps) >= MEASURED_STEPS:
            return
        self._steps.append(done)
        if len(self._steps) < MEASURED_STEPS:
            return
        self.told = replace(
            self.told, time=time.time(), peak_memory_bytes=self._peak(), seconds_per_epoch=self._seconds(), measured_steps=MEASURED_STEPS
        )
        yield self.told
        more, free = self.told.peak_memory_bytes - self.memory.bytes(), available_bytes(self._device)
        if more > free:
            need = f"the longest rows are still to come, and with them the run needs about {more / 1e9:.1f} GB more"
            fix = "stop it, and lower per_device_train_batch_size or max_length"
            yield Note(level="warning", text=f"{need}; {free / 1e9:.1f} GB are free: {fix}")

    def _peak(self) -> int:
        """What was measured, with what longer rows and the copy that a checkpoint is written from will add."""
        estimate = self._estimate
        seen = max(step.most_places for step in self._steps)
        longer = max(0.0, 1 - seen / estimate.most_places) if estimate.most_places else 0.0
        return int(self.memory.bytes() + longer * estimate.activation_bytes + estimate.checkpoint_bytes)

    def _seconds(self) -> float:
        """The epoch's places at the pace of the steps after the first."""
        steps = self._steps[1:]
        places = sum(step.places for step in steps)
        return self._estimate.places_per_epoch * sum(step.ended - step.began for step in steps) / places
