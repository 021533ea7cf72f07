"""A run in a process of its own, which goes on when the notebook's kernel or its browser is closed.

All that travels is the run's folder. The child is born with the lock that makes its parent the owner, so that at no moment the run
has none; the parent keeps its hold until the child has ended, so that it can still write down why a child never began.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Final

from nbtune.errors import RunError, SpecError
from nbtune.events import Failed
from nbtune.launch.turns import leave, take_place
from nbtune.locks import Lock
from nbtune.metrics.naming import saved_metric
from nbtune.models.loading import Source
from nbtune.store import RunFolder
from nbtune.task import Task

__all__ = ["log_tail", "refuse_to_send", "start_process"]

_OVER: Final = ("finished", "stopped", "failed")
_TAIL: Final = 5
"""Lines of process.log that an error shows."""


def refuse_to_send(source: Source, task: Task) -> None:
    """Refuses what another process could not find again.

    Raises:
        SpecError: the model is an object of this process, or the metric a function that cannot be imported.
    """
    if sys.platform == "win32":
        raise SpecError("launch: process needs Linux or macOS", hint="use launch: thread")
    if source.bound is not None:
        message = f"the model {source.name!r} is an object of this process: launch: process cannot send it to another"
        raise SpecError(message, hint="name the model or its folder, or use launch: thread")
    if saved_metric(task.metric)["metric_function"] == "":
        message = f"the metric {task.metric.name!r} is a function of this notebook: launch: process cannot send it to another process"
        raise SpecError(message, hint="put it into a module and import it from there, or use launch: thread")


def start_process(folder: RunFolder, device: str | None) -> None:
    """Starts the worker of a run whose folder is whole and owned by this process, which hands the ownership over.

    Raises:
        RunError: no process can be started, or the queue cannot be written.
    """
    take_place(folder, device)
    lock = folder.hand_over()
    assert lock is not None  # noqa: S101  the caller owns the folder
    command = [sys.executable, "-m", "nbtune.launch.worker", str(folder.path), "--lock", str(lock.descriptor)]
    try:
        with (folder.path / "process.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  ourselves
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                pass_fds=(lock.descriptor,),
                start_new_session=True,  # an interrupt or the end of the kernel goes to its process group
            )
    except OSError as error:
        leave(folder)
        lock.release()
        raise RunError(f"no process could be started for run {folder.name}: {error}", hint="use launch: thread") from error
    threading.Thread(target=_see_off, args=(process, lock, folder), name=f"nbtune-{folder.id}", daemon=True).start()


def _see_off(process: subprocess.Popen[bytes], lock: Lock, folder: RunFolder) -> None:
    """Waits for the child; writes down the end of one that could not do so itself. One that a signal killed is interrupted."""
    code = process.wait()
    try:
        if code > 0 and folder.status() not in _OVER:
            tail = log_tail(folder)
            message = f"the process of run {folder.name} ended with exit status {code} before its run did" + (f": {tail}" if tail else "")
            folder.append(Failed(step=0, kind="RunError", message=message, hint=f"all it said is in {folder.path / 'process.log'}"))
            leave(folder)
    finally:
        lock.release()


def log_tail(folder: RunFolder) -> str:
    """The last lines that the run's process printed; "" where it has none. Untrusted text."""
    try:
        text = (folder.path / "process.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-_TAIL:])
