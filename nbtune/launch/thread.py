"""Runs in threads of this process: one at a time on each device, the others in a queue."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Work", "submit", "waiting"]

EXIT_SECONDS: Final = 20.0
"""How long an ending process waits for the step and the checkpoint of a run that it stops."""


@dataclass(frozen=True)
class Work:
    """One run's job: `do` runs it to its end, `stop` asks it to end after its step."""

    run_id: str
    do: Callable[[], None]
    stop: Callable[[], None]


_guard = threading.Condition()
_queues: dict[str, deque[Work]] = {}
_current: dict[str, Work] = {}
_threads: dict[str, threading.Thread] = {}


def submit(device: str, work: Work) -> tuple[str, ...]:
    """Puts work at the end of the device's queue; the run ids before it."""
    with _guard:
        ahead = waiting(device)
        _queues.setdefault(device, deque()).append(work)
        if not ahead:
            _threads[device] = threading.Thread(target=_work, args=(device,), name=f"nbtune-{device}", daemon=True)
            _threads[device].start()
        return ahead


def waiting(device: str) -> tuple[str, ...]:
    """Run ids at work or waiting on a device, in order."""
    with _guard:
        current = (_current[device],) if device in _current else ()
        return tuple(work.run_id for work in (*current, *_queues.get(device, ())))


def _work(device: str) -> None:
    while True:
        with _guard:
            _current.pop(device, None)
            if not _queues[device]:
                return
            work = _current[device] = _queues[device].popleft()
        work.do()


@atexit.register
def _end() -> None:
    """Stops what still runs when the process ends, so that its steps are kept; torch aborts a process that ends under its threads."""
    with _guard:
        for device, queue in _queues.items():
            queue.clear()
            if device in _current:
                _current[device].stop()
    for thread in list(_threads.values()):
        thread.join(EXIT_SECONDS)
