"""`python -m nbtune.launch.worker FOLDER`: the process of a run that was launched as one. All it knows is in the folder."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from nbtune.errors import NbtuneError
from nbtune.events import Failed
from nbtune.launch.job import Job
from nbtune.launch.live import Live
from nbtune.launch.turns import leave, run_in_turn
from nbtune.methods import get
from nbtune.objectives import source_for
from nbtune.store import RunFolder
from nbtune.task import Task

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the run to its end, whatever that is; 1 where it could not begin. SIGTERM stops it after its step, with a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m nbtune.launch.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=int, help="descriptor of the run's lock, inherited; left out: the lock is taken")
    said = parser.parse_args(arguments)
    folder = RunFolder(said.folder.absolute())
    if said.lock is None:
        folder.take()
    else:
        folder.adopt(said.lock)

    def stop(_number: int, _frame: FrameType | None) -> None:
        folder.control("stop")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    job = _job(folder)
    if job is None:
        return 1
    run_in_turn(job)
    return 0


def _job(folder: RunFolder) -> Job | None:
    """What the folder says there is to do; None where it cannot be done, which is then told there."""
    try:
        said = folder.spec
        method = get(said["method"])
        spec = method.spec.build({key: value for key, value in said.items() if key in method.spec.model_fields})
        again = bool(folder.checkpoints()) or any(event.type == "started" for event in folder.events())
        task = Task.open(folder.path)
        return Job(Live(folder, keeps=True), method, spec, task, source_for(spec.objective, spec.model, task), again=again)
    except NbtuneError as error:
        folder.append(Failed(step=0, kind=type(error).__name__, message=error.message, hint=error.hint))
        leave(folder)
        folder.release()
        return None


if __name__ == "__main__":
    raise SystemExit(main())
