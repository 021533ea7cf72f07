"""One run from its spec to its last event: load, attach, encode, train. What a thread or a process executes."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbtune.errors import DataError, NbtuneError, RunError
from nbtune.events import Failed, Note, Phase, Stopped
from nbtune.training.controls import Controls

if TYPE_CHECKING:
    from nbtune.data.encoding import Encoded, Encoder
    from nbtune.launch.live import Live
    from nbtune.methods import Method
    from nbtune.models.base import Base
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task
    from nbtune.training.evaluation import Evaluator

__all__ = ["Job", "run_job"]


@dataclass(frozen=True)
class Job:
    """What there is to do."""

    live: Live
    method: Method
    spec: FinetuneSpec
    task: Task
    source: Source


class _StoppedEarlyError(Exception):
    """The run was stopped before its first step: there is nothing to keep."""


def run_job(job: Job) -> None:
    """Executes a job to its end, whatever that is; never raises. A run that fails before it began leaves nothing behind."""
    live = job.live
    began = False
    try:
        if not (live.folder.path / "task.json").exists():
            job.task.save(live.folder.path)
        training = _prepare(job)
        began = True
        for event in training.events():
            live.emit(event)
    except _StoppedEarlyError:
        live.emit(Stopped(step=0, summary={}))
    except BaseException as error:  # noqa: BLE001  it is handed to whoever waits for the run
        live.error = _as_ours(error)
        _tell_failure(job, error)
        if not began and isinstance(live.error, NbtuneError):
            live.folder.discard()
    finally:
        live.folder.release()
        live.over.set()


def _prepare(job: Job) -> Any:
    from nbtune.estimate import counted, fits
    from nbtune.models.families import can_pack
    from nbtune.objectives import get
    from nbtune.training.loop import Training

    live, spec = job.live, job.spec
    _phase(job, "importing torch" if "torch" not in sys.modules else f"looking at {job.source.name}")
    from nbtune.models.shared import warm_up

    warm_up()
    _, total_parameters = counted(job.method.name, spec, job.source)
    _phase(job, f"reading the tokenizer of {job.source.name}")
    encoder = _encoder(job)
    rows = _encode(job, encoder)
    spec, _ = fits(job.method.name, spec, job.source, rows)  # decides about gradient_checkpointing: auto
    _phase(job, f"loading {job.source.name}" + (f" as {spec.quantization}" if spec.quantization else ""))
    base = _load(job)
    packed = _packed(spec, can_pack(base.config))
    _phase(job, f"attaching {job.method.name}")
    job.method.attach(base, spec, live.folder.id)
    _keep(live.folder.id, base)
    live.folder.write_json("environment.json", _environment(base))
    objective = get(spec.objective)
    return Training(
        spec=spec,
        base=base,
        adapter=live.folder.id,
        objective=objective,
        rows=rows,
        evaluator=_evaluator(job, base, encoder, packed),
        folder=live.folder.path,
        packed=packed,
        total_parameters=total_parameters,
    )


def _phase(job: Job, text: str) -> None:
    """Tells what goes on, unless it is not wanted any more."""
    if any(request["action"] == "stop" for request in Controls(job.live.folder.path / "control.jsonl").new()):
        raise _StoppedEarlyError
    job.live.emit(Phase(text=text))


def _encoder(job: Job) -> Encoder:
    from nbtune.data.encoding import Encoder

    return Encoder(job.source.tokenizer, job.task.uses_chat, job.task.system)


def _encode(job: Job, encoder: Encoder) -> list[Encoded]:
    from nbtune.data.encoding import encode_rows

    limit = _max_length(job)
    rows, cut = encode_rows(encoder, job.task.train, max_length=limit)
    if cut:
        text = f"{cut} of {len(rows)} rows are longer than max_length {limit} and lose the beginning of their prompt"
        job.live.emit(Note(level="warning", text=text))
    return rows


def _max_length(job: Job) -> int:
    context = getattr(job.source.config, "max_position_embeddings", None)
    return min(job.spec.max_length, context) if isinstance(context, int) else job.spec.max_length


def _load(job: Job) -> Base:
    from nbtune.models.shared import own_base, shared_base

    load = own_base if job.method.writes_base else shared_base
    return load(job.source, dtype=job.spec.dtype, quantization=job.spec.quantization, device=job.spec.device)


def _keep(run_id: str, base: Base) -> None:
    from nbtune.models.shared import keep_tuned

    keep_tuned(run_id, base)


def _packed(spec: FinetuneSpec, possible: bool) -> bool:
    if spec.packing is True and not possible:
        message = "packing is true, and this model's attention takes no block mask, so rows would see each other"
        raise DataError(message, hint="set packing: auto")
    return possible and spec.packing is not False


def _evaluator(job: Job, base: Base, encoder: Encoder, packed: bool) -> Evaluator:
    from nbtune.data.encoding import encode_rows
    from nbtune.objectives import get
    from nbtune.training.evaluation import Evaluator

    examples = job.task.dev[: job.spec.max_eval_rows]
    rows, _ = encode_rows(encoder, examples, max_length=_max_length(job))
    return Evaluator(
        task=job.task,
        base=base,
        adapter=job.live.folder.id,
        encoder=encoder,
        objective=get(job.spec.objective),
        examples=examples,
        rows=tuple(rows),
        packed=packed,
        num_samples=job.spec.num_samples,
    )


def _environment(base: Base) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {}
    for package in ("nbtune", "torch", "transformers", "peft", "bitsandbytes"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": str(base.device),
        "dtype": str(base.dtype),
        "threads": torch.get_num_threads(),
        "process": os.getpid(),
    }


def _as_ours(error: BaseException) -> BaseException:
    """Running out of memory or disk is told as what to do about it; a bug of ours keeps its traceback."""
    name = type(error).__name__
    if name == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return RunError("the device ran out of memory", hint="use a smaller per_device_train_batch_size or max_length, or quantization nf4")
    if isinstance(error, OSError) and not isinstance(error, NbtuneError):
        return RunError(f"the run could not write or read: {error}", hint="free some disk space")
    return error


def _tell_failure(job: Job, error: BaseException) -> None:
    ours = job.live.error
    steps = [event.step for event in job.live.folder.events() if event.type == "step"]  # type: ignore[attr-defined]
    clean = isinstance(ours, NbtuneError)
    event = Failed(
        step=steps[-1] if steps else 0,
        kind=type(ours).__name__,
        message=ours.message if isinstance(ours, NbtuneError) else str(ours),
        hint=ours.hint if isinstance(ours, NbtuneError) else "",
        traceback="" if clean else "".join(traceback.format_exception(error)),
    )
    try:
        job.live.emit(event)
    except OSError:
        job.live.folder.remember(event)  # the disk is full: waiters and the panel still learn of it
