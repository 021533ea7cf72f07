"""Runs in threads of this process: each in one of its own, which waits for its device in the project's queue."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Final

from nbtune.errors import RunError
from nbtune.launch.job import Job
from nbtune.launch.turns import run_in_turn, take_place
from nbtune.models.device import rest_threads

__all__ = ["end_threads", "start_thread"]

EXIT_SECONDS: Final = 20.0
"""How long an ending process waits for the step and the checkpoint of the runs that it stops."""


@dataclass(frozen=True)
class _Started:
    """A run's thread. `leaving` tells it to give up its wait; `at_work` tells that it waits no more."""

    job: Job
    thread: threading.Thread
    leaving: threading.Event
    at_work: threading.Event


_started: dict[str, _Started] = {}


def start_thread(job: Job) -> None:
    """Starts a run whose folder this process owns; its place in the queue is that of this call.

    Raises:
        RunError: the queue cannot be written.
    """
    take_place(job.live.folder, job.spec.device)
    run = job.live.folder.id
    leaving, at_work = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=run_in_turn, args=(job,), kwargs={"leaving": leaving, "at_work": at_work}, name=f"nbtune-{run}", daemon=True
    )
    _started[run] = _Started(job, thread, leaving, at_work)
    rest_threads()
    thread.start()


@atexit.register
def end_threads() -> None:
    """Stops what runs in threads when the process ends, so that no step is lost; torch aborts a process that ends under its threads.

    What still waits for its turn is given up, and can be resumed.
    """
    living = [started for started in list(_started.values()) if started.thread.is_alive()]
    deadline = time.monotonic() + EXIT_SECONDS
    for started in living:
        started.leaving.set()
        if started.at_work.is_set():
            with contextlib.suppress(RunError):  # a full disk: it is interrupted, as by a power loss
                started.job.live.folder.control("stop")
    for started in living:
        started.thread.join(max(0.0, deadline - time.monotonic()))
