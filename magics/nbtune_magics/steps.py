"""Waiting in a cell: a magic is a generator that yields where it can wait, so that one code serves awaited and blocking cells.

Each yield means "look again in a moment" and is sent how many interrupts have come so far. An awaited cell leaves the
kernel free for widget messages meanwhile; a blocking one does not, but runs where `await` cannot stand (`%%time`, `def`).
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

from nbtune.models.device import rest_threads

__all__ = ["Steps", "awaited", "blocking", "in_thread"]

T = TypeVar("T")
Steps = Generator[None, int, T]

LONGEST_PAUSE: Final = 0.05
_FIRST_PAUSE: Final = 0.002


class _Interrupts:
    """Counts SIGINT in place of the kernel's own handling, which fires once a cell and swallows the second (ipykernel 7.4).

    Off the main thread Python allows no handler: the count then stays zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._count)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before if self._before is not None else signal.default_int_handler)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


async def awaited(steps: Steps[T]) -> T:
    """Drives `steps` while the event loop stays free; a cancelled cell is told to the steps as an interrupt."""
    try:
        next(steps)
        with _Interrupts() as interrupts:
            for pause in _pauses():
                try:
                    await asyncio.sleep(pause)
                except asyncio.CancelledError:
                    steps.throw(KeyboardInterrupt())
                steps.send(interrupts.count)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()
    raise AssertionError  # the pauses never end


def blocking(steps: Steps[T]) -> T:
    """Drives `steps` to the end; nothing else runs on this thread meanwhile."""
    try:
        next(steps)
        with _Interrupts() as interrupts:
            for pause in _pauses():
                time.sleep(pause)
                steps.send(interrupts.count)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()
    raise AssertionError  # the pauses never end


def in_thread(work: Callable[[], T], *, interrupted: Callable[[int], None] | None = None) -> Steps[T]:
    """The result of `work`, done in a thread; `interrupted` is told each new count of interrupts (left out: the first aborts).

    Raises:
        KeyboardInterrupt: in the cell; the thread itself cannot be ended and runs on unless `interrupted` ends its work.
    """
    result: Future[T] = Future()
    thread = threading.Thread(target=_work, args=(work, result), name="nbtune-cell", daemon=True)
    rest_threads()
    thread.start()
    seen = 0
    while not result.done():
        count = yield
        if count > seen and not result.done():
            seen = count
            if interrupted is None:
                raise KeyboardInterrupt
            interrupted(count)
    return result.result()


def _work(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # noqa: BLE001  (it is raised again in the cell)
        result.set_exception(error)


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_PAUSE)
