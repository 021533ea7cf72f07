"""How fast a device is, measured for a fifth of a second and once a process: what turns work into seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from nbtune.estimate.trace import Work

__all__ = ["Throughput", "throughput"]

_SIDE: Final = 1024
_BYTES: Final = 1 << 25
_SECONDS: Final = 0.05
_measured: dict[tuple[str, str, int], Throughput] = {}


@dataclass(frozen=True)
class Throughput:
    """Floating-point operations and bytes a second, and seconds that an operator costs whatever its size."""

    flops: float
    moved: float
    call: float

    def seconds(self, work: Work) -> float:
        """How long the work takes."""
        return work.flops / self.flops + work.moved / self.moved + work.calls * self.call


def throughput(device: torch.device, dtype: torch.dtype) -> Throughput:
    """Measured with matrix products and sums in `dtype`, for as many threads as there are now."""
    import torch

    key = (str(device), str(dtype), torch.get_num_threads())
    if key not in _measured:
        with torch.no_grad():
            one = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)
            many = torch.ones(_BYTES // dtype.itemsize, dtype=dtype, device=device)
            few = torch.ones(1, dtype=dtype, device=device)
            product = _each(lambda: one @ one, device)
            total = _each(lambda: many.add_(1), device)
            call = _each(lambda: few.add_(1), device)
        _measured[key] = Throughput(2 * _SIDE**3 / product, 2 * _BYTES / total, call)
    return _measured[key]


def _each(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the best of those that fit into the time."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else torch.mps.synchronize if device.type == "mps" else None
    run()
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        run()
        if wait is not None:
            wait()
        best = min(best, time.perf_counter() - began)
    return best
