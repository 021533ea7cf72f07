"""Runs that are killed, at a named moment by themselves or at any by whoever started them.

Each is executed in a process forked from one that has imported torch already; on CUDA, which does not survive a fork once a library has
looked at the device, in one that begins anew.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

__all__ = ["MOMENTS", "begin", "go_on", "in_child", "run_and_die", "run_on", "started"]

MOMENTS = ("inside a step", "after a step was told", "while a checkpoint is written", "between marker and rename", "before the old ones go")
_PRELOADED = [
    *("torch", "transformers.models.llama.modeling_llama", "peft", "safetensors.torch", "pandas", "pyarrow.parquet", "datasketch"),
    *("tests.training.runs", "nbtune.launch.job", "nbtune.estimate", "nbtune.methods.lora", "nbtune.data.doctor", "nbtune.objectives.sft"),
    *("nbtune.training.loop", "nbtune.training.evaluation", "nbtune.training.activations", "nbtune.inference"),
]
"""What a run would import itself, which takes longer than all it does on a tiny model."""


def started(work: Any, *arguments: Any) -> BaseProcess:
    """A fresh process that does `work`, on its way."""
    import torch

    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    if not torch.cuda.is_available():
        context.set_forkserver_preload(_PRELOADED)
    child: BaseProcess = context.Process(target=work, args=arguments)
    child.start()
    return child


def in_child(work: Any, *arguments: Any) -> int | None:
    """The exit code of a fresh process that does `work`."""
    child = started(work, *arguments)
    child.join(120)
    return child.exitcode


def begin(ready: Connection, home: str, folder: str, options: dict[str, Any]) -> None:
    """Says that it is ready, then trains a run called "killed" to its end."""
    os.environ["NBTUNE_HOME"] = home
    from tests.training.runs import start

    ready.send_bytes(b"ready")
    start(Path(folder), name="killed", **options).wait()


def go_on(ready: Connection, home: str) -> None:
    """Says that it is ready, then goes on with the run, to its end."""
    ready.send_bytes(b"ready")
    run_on(home)


def run_and_die(home: str, folder: str, moment: tuple[str, int], options: dict[str, Any], set_at: str = "step 4") -> None:
    """Starts a run that dies the n-th time that `moment` (what, n) comes; at the event `set_at` its learning rate is set."""
    os.environ["NBTUNE_HOME"] = home
    from tests.training.runs import start

    _arm(*moment)
    run = start(Path(folder), name="killed", **options)
    told = lambda event: f"step {event.step}" if event.type == "step" else event.type  # noqa: E731
    run.listen(lambda event: run.set(learning_rate=5e-4) if told(event) == set_at else None)
    run.wait()


def run_on(home: str) -> None:
    """Goes on with it, to its end."""
    os.environ["NBTUNE_HOME"] = home
    import nbtune

    nbtune.open("killed").resume().wait()


def _arm(moment: str, count: int) -> None:
    from nbtune.launch.live import Live
    from nbtune.task import Task
    from nbtune.training import checkpoints
    from nbtune.training.step import Stepper

    places: dict[str, tuple[Any, str]] = {
        "before its rows are saved": (Task, "save"),
        "inside a step": (Stepper, "_update"),
        "after a step was told": (Live, "_tell"),
        "while a checkpoint is written": (checkpoints, "_write_moments"),
        "between marker and rename": (Path, "rename"),
        "before the old ones go": (checkpoints, "retain"),
    }
    owner, name = places[moment]
    real = getattr(owner, name)
    seen = 0

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        told_step = moment != "after a step was told" or arguments[1].type == "step"
        renamed = name != "rename" or str(arguments[0]).rpartition("/")[2].startswith(".part-")
        seen += told_step and renamed
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(owner, name, deadly)
