"""The most memory that a run has had in use, watched by who knows: torch on a GPU, the kernel on Linux."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

__all__ = ["PeakMemory"]

_PROCESS: Final = Path("/proc/self")


class PeakMemory:
    """The most bytes in use on the device since this was made; `before` were in use then.

    On CUDA those that torch has allocated; on the CPU those of the process that are resident, by the kernel's own mark where it can be
    set back (Linux: clear_refs(5) in proc(5)), elsewhere the most of the moments at which it was asked.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marked = _set_back(device)
        self.before = self._most = self._now()

    def bytes(self) -> int:
        """The most so far."""
        self._most = max(self._most, self._high_water() if self._marked else self._now())
        return self._most

    def _now(self) -> int:
        import torch

        if self._device.type == "cuda":
            return int(torch.cuda.memory_allocated(self._device))
        if self._device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        import psutil

        return int(psutil.Process().memory_info().rss)

    def _high_water(self) -> int:
        if self._device.type == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        lines = (_PROCESS / "status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), self._most)


def _set_back(device: torch.device) -> bool:
    """Sets the mark of the most in use back to what is in use; whether there is one."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type != "cpu":
        return False
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:  # no Linux, or not allowed
        return False
    return True
