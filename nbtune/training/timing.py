"""A step's time and figures, read without making the device wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Reading", "Stopwatch"]


class Reading:
    """Small tensors on their way to the CPU; `values()` waits for these alone, not for what was queued on the device after them."""

    def __init__(self, *figures: torch.Tensor) -> None:
        import torch

        together = torch.stack([figure.detach().float() for figure in figures])
        self._arrived: Any = None
        if together.device.type == "cuda":
            self._host = torch.empty(len(figures), pin_memory=True)
            self._host.copy_(together, non_blocking=True)
            self._arrived = _recorded(together.device)
        else:
            self._host = together

    def values(self) -> list[float]:
        """The numbers."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [float(value) for value in self._host.tolist()]


class Stopwatch:
    """Splits a step's seconds into parts: by events on a CUDA stream, which nobody waits for; elsewhere by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._parts: list[tuple[str, Any]] = []
        self._last = self._now()

    def lap(self, part: str) -> None:
        """What went on since the lap before belongs to `part`."""
        now = self._now()
        self._parts.append((part, (self._last, now)))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """{part: seconds}; on CUDA only after the last lap's work is known to be done."""
        found: dict[str, float] = {}
        for part, (before, after) in self._parts:
            took = before.elapsed_time(after) / 1000 if self._device.type == "cuda" else after - before
            found[part] = found.get(part, 0.0) + took
        return found

    def _now(self) -> Any:
        return _recorded(self._device, timed=True) if self._device.type == "cuda" else time.perf_counter()


def _recorded(device: torch.device, *, timed: bool = False) -> torch.cuda.Event:
    """An event behind all that is queued on that device, which need not be the current one, as an event left alone takes it to be."""
    import torch

    event = torch.cuda.Event(enable_timing=timed)
    event.record(torch.cuda.current_stream(device))
    return event
