"""Runs in threads of this process: one at a time on each device, the others in a queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["submit", "waiting"]

_guard = threading.Condition()
_queues: dict[str, deque[tuple[str, Callable[[], None]]]] = {}
_current: dict[str, str] = {}


def submit(device: str, run_id: str, job: Callable[[], None]) -> tuple[str, ...]:
    """Puts a job at the end of the device's queue; the run ids before it.

    The thread is a daemon: a closed kernel does not wait for it, and the run's lock falls with the process.
    """
    with _guard:
        ahead = waiting(device)
        queue = _queues.setdefault(device, deque())
        queue.append((run_id, job))
        if device not in _current and len(queue) == 1 and not ahead:
            threading.Thread(target=_work, args=(device,), name=f"nbtune-{device}", daemon=True).start()
        return ahead


def waiting(device: str) -> tuple[str, ...]:
    """Run ids at work or waiting on a device, in order."""
    with _guard:
        current = (_current[device],) if device in _current else ()
        return (*current, *(run_id for run_id, _ in _queues.get(device, ())))


def _work(device: str) -> None:
    while True:
        with _guard:
            _current.pop(device, None)
            if not _queues[device]:
                return
            run_id, job = _queues[device].popleft()
            _current[device] = run_id
        job()
