"""torch's one generator for all threads of a process: whoever draws from it has it alone, so that a run draws the same each time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

__all__ = ["drawn_from"]

_ALONE: Final = threading.RLock()


@contextmanager
def drawn_from(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """What is drawn inside, on the CPU and on `device`, comes from `seed`; afterwards the generators are where they were.

    Another thread that draws meanwhile (a model that is loaded beside a training, a second training) waits.
    """
    import torch

    with _ALONE, torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
