"""Follows the memory and the work of a training step that is run on shapes alone.

Torch's fake tensors have a shape, a dtype and a device, and no numbers, so the model's own code runs on them (its attention,
autocast, adapters, checkpointing, backward) and allocates nothing. What is alive at once is then known, not guessed.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Ledger", "Work", "tracing"]


@dataclass
class Work:
    """What was computed: floating-point operations of matrix products and attention, bytes moved by all other operators, their number."""

    flops: float = 0.0
    moved: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved, self.calls + other.calls)

    def __sub__(self, other: Work) -> Work:
        return self + other * -1

    def __mul__(self, factor: float) -> Work:
        return Work(self.flops * factor, self.moved * factor, self.calls * factor)


@dataclass
class Pool:
    """Bytes alive now in storages of a kind, the most within each phase, and the level at which each phase began."""

    live: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)

    def enter(self, phase: str) -> None:
        """From here on peaks belong to `phase`."""
        self.levels[phase] = self.peaks[phase] = self.live

    def add(self, size: int, phase: str) -> None:
        """So many bytes more, or less."""
        self.live += size
        self.peaks[phase] = max(self.peaks.get(phase, 0), self.live)


@dataclass
class Ledger:
    """The storages alive: all, those below and those above `large` bytes; and the work done when each phase began."""

    large: int
    phase: str = ""
    every: Pool = field(default_factory=Pool)
    small: Pool = field(default_factory=Pool)
    big: Pool = field(default_factory=Pool)
    began: dict[str, Work] = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    _sizes: dict[int, int] = field(default_factory=dict)

    def enter(self, phase: str) -> None:
        """From here on peaks and work belong to `phase`."""
        self.phase = phase
        self.began[phase] = self.work + Work()
        for pool in (self.every, self.small, self.big):
            pool.enter(phase)

    def hold(self, tensor: torch.Tensor) -> None:
        """Counts the tensor's storage until it is freed; views of it are counted with it."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001  the storage's address, the one name that all its views share
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._add(self._sizes[key], 1)
        weakref.finalize(storage, self._free, key).atexit = False

    def _free(self, key: int) -> None:
        self._add(self._sizes.pop(key), -1)

    def _add(self, size: int, sign: int) -> None:
        for pool in (self.every, self.big if size >= self.large else self.small):
            pool.add(sign * size, self.phase)

    def count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Adds one operator's work."""
        import torch
        from torch.utils.flop_counter import flop_registry

        self.work.calls += 1
        counter = flop_registry.get(func._overloadpacket)  # noqa: SLF001  how torch's own counter looks it up
        if counter is not None:
            self.work.flops += counter(*args, **kwargs, out_val=out)
        elif not func.is_view:
            touched = (*args, *(out if isinstance(out, tuple | list) else (out,)))
            self.work.moved += sum(item.numel() * item.itemsize for item in touched if isinstance(item, torch.Tensor))


@contextmanager
def tracing(large: int) -> Iterator[Ledger]:
    """Inside it new tensors are fake, and the ledger yielded follows them. Other threads see nothing of it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    ledger = Ledger(large)
    asked = torch.ops.prim.device.default

    class Follow(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
            if func is asked:  # more than half of all calls, and answered without FakeTensorMode
                return args[0].fake_device
            out = func(*args, **(kwargs or {}))
            for item in out if isinstance(out, tuple | list) else (out,):
                if isinstance(item, torch.Tensor):
                    ledger.hold(item)
            ledger.count(func, args, kwargs or {}, out)
            return out

    voice = logging.getLogger("torch._subclasses.fake_tensor")  # it prints a traceback of what is raised, which is caught
    before = voice.level
    voice.setLevel(logging.CRITICAL)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Follow():  # type: ignore[no-untyped-call]
            yield ledger
    finally:
        voice.setLevel(before)
