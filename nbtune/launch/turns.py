"""Waiting for a device: each job does it itself, in its own thread or process, by looking at the project's queue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from nbtune.errors import ModelError, NbtuneError, RunError
from nbtune.events import Event, Failed, Phase, Queued, Stopped
from nbtune.launch.job import Job, run_job, steps_done
from nbtune.launch.queue import QueueFile
from nbtune.models.device import device_of, name_at_once
from nbtune.store import RunFolder
from nbtune.training.controls import Controls, read_until

__all__ = ["GaveUpError", "leave", "run_in_turn", "take_place", "turn"]

POLL_SECONDS: Final = 0.1


class GaveUpError(Exception):
    """The wait for a turn was cancelled."""


def take_place(folder: RunFolder, device: str | None) -> None:
    """Puts a run at the end of the queue; whoever starts it does so at once, so that runs come in the order they were started.

    Raises:
        RunError: the queue cannot be written.
    """
    try:
        QueueFile.of(folder).enter(folder.id, name_at_once(device))
    except OSError as error:
        message = f"the queue cannot be written in {folder.path.parent.parent}: {error.strerror or error}"
        raise RunError(message, hint="free some disk space, or set NBTUNE_HOME to a folder that can be written") from error


@contextlib.contextmanager
def turn(folder: RunFolder, device: str | None, *, tell: Callable[[Event], None], cancelled: Callable[[], bool]) -> Iterator[None]:
    """Waits until the device is free for this run, and keeps it within the block.

    Args:
        folder: the run, its lock held by this process, its place taken.
        device: as the spec says it.
        tell: gets a `Queued` whenever those ahead change.
        cancelled: looked at ten times a second while waiting.

    Raises:
        GaveUpError: it was cancelled; the run keeps its place.
    """
    queue = QueueFile.of(folder)
    _name_device(queue, folder, device, tell)
    told: tuple[str, ...] = ()
    while ahead := _ahead(queue, folder.id):
        if cancelled():
            raise GaveUpError
        if ahead != told:
            tell(Queued(ahead=ahead))
            told = ahead
        time.sleep(POLL_SECONDS)
    if cancelled():
        raise GaveUpError
    try:
        yield
    finally:
        leave(folder)


def leave(folder: RunFolder) -> None:
    """Gives a run's place up. Where that cannot be written nothing is lost: a run that is over is in nobody's way."""
    with contextlib.suppress(OSError, RunError):
        QueueFile.of(folder).leave(folder.id)


def _name_device(queue: QueueFile, folder: RunFolder, device: str | None, tell: Callable[[Event], None]) -> None:
    """Writes down which device it is, now that torch may be waited for; until then the run shares every device."""
    known = name_at_once(device)
    if known is None:
        tell(Phase(text="importing torch"))
        with contextlib.suppress(ModelError):  # the job itself tells that there is no such device
            known = str(device_of(device))
    if known is not None and any(entry.run == folder.id and entry.device != known for entry in queue.entries()):
        queue.name_device(folder.id, known)


def _ahead(queue: QueueFile, run: str) -> tuple[str, ...]:
    """Those before it; where nobody is, its turn is written down."""
    return queue.ahead(run) or queue.begin(run)


def run_in_turn(job: Job, *, leaving: threading.Event | None = None, at_work: threading.Event | None = None) -> None:
    """Runs a job to its end when its turn comes; never raises.

    Stopped while it waits, it ends as stopped at once.

    Args:
        job: its folder owned by this process, its place in the queue taken.
        leaving: set by who ends this process: a job that waits is given up as it is, interrupted.
        at_work: set here when the turn has come: from then on the job has to be asked to stop.
    """
    leaving, at_work = leaving or threading.Event(), at_work or threading.Event()
    folder = job.live.folder
    controls = Controls(folder.path / "control.jsonl", read_until(folder.events()))

    def tell(event: Event) -> None:
        if isinstance(event, Queued) and not (folder.path / "task.json").exists():
            job.task.save(folder.path)  # it may wait for hours: what it is to learn is kept now
        job.live.emit(event)

    try:
        with turn(folder, job.spec.device, tell=tell, cancelled=lambda: leaving.is_set() or controls.stop_asked() is not None):
            at_work.set()
            if leaving.is_set():
                raise GaveUpError  # noqa: TRY301  who set it may have looked at `at_work` just before
            run_job(job)
    except GaveUpError:
        _end(job, None if leaving.is_set() else Stopped(step=steps_done(folder), summary={}))
    except Exception as error:  # noqa: BLE001  it is handed to whoever waits for the run
        job.live.error = error if isinstance(error, NbtuneError) else RunError(f"the run could not wait for its turn: {error}")
        _end(job, Failed(step=steps_done(folder), kind=type(error).__name__, message=str(error)))


def _end(job: Job, event: Event | None) -> None:
    """Ends a run that had no turn, telling its last event (None: none, the run can be resumed)."""
    live = job.live
    if event is not None:
        live.emit(event)
        leave(live.folder)
    live.folder.release()
    live.over.set()
