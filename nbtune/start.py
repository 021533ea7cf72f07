"""`nbtune.finetune`: from words to a run that is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune.errors import RunError, SpecError
from nbtune.launch.job import Job
from nbtune.launch.live import Live
from nbtune.launch.process import refuse_to_send, start_process
from nbtune.launch.signals import stop_on_sigterm
from nbtune.launch.thread import start_thread
from nbtune.methods import get
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.run import Run
from nbtune.store import RunFolder

if TYPE_CHECKING:
    from nbtune.task import Task

__all__ = ["finetune"]


def finetune(
    method: str,
    *,
    task: Task,
    model: Any = DEFAULT_DECODER,
    quantization: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Run:
    """Starts a training in a thread or, with `launch="process"`, a process of its own, and returns its handle at once.

    Args:
        method: lora, full, head, last-blocks ...
        task: what to learn.
        model: catalogue name, local folder, hub id, or a bound model (which stays as it is).
        quantization: nf4, fp4 or int8.
        dtype: number format of the base; left out: what the device is fast at.
        name: of the run; left out: task and method.
        seed: of everything random.
        **options: the method's, and `FinetuneSpec`'s, by name or alias.

    Raises:
        SpecError: unknown method, option, or value; something that cannot travel to another process.
        ModelError: there is no such model.
        RunError: the folder cannot be written, or no process be started.
    """
    from nbtune.models.loading import source_of
    from nbtune.task import Task

    if not isinstance(task, Task):
        raise SpecError(
            f"task is a nbtune.Task, not {type(task).__name__}", hint="make one: nbtune.Task(data=..., prompt=..., completion=...)"
        )
    chosen = get(method)
    source = source_of(model or DEFAULT_DECODER)
    values = {"quantization": quantization, "dtype": dtype, "seed": seed, **options}
    spec = chosen.spec.build(
        {**values, "task": task.name, "model": source.path or source.name, "name": name or f"{task.name}_{chosen.name}".replace("-", "_")}
    )
    if spec.launch == "process":
        refuse_to_send(source, task)
    stop_on_sigterm()
    folder = RunFolder.create(str(spec.name), {"method": chosen.name, **spec.model_dump(mode="json", exclude={"name"})})
    run = Run(folder, task)
    try:
        if spec.launch == "process":
            task.save(folder.path)
            start_process(folder, spec.device)
        else:
            start_thread(Job(Live(folder), chosen, spec, task, source))
    except OSError as error:
        folder.discard()
        raise RunError(
            f"the run's folder {folder.path} cannot be written: {error.strerror or error}", hint="free some disk space"
        ) from error
    except BaseException:
        folder.discard()
        raise
    return run
