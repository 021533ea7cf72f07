"""One run from its spec to its last event: load, attach, encode, train. What a thread or a process executes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from nbtune.data.batches import packing_note, steps_in
from nbtune.data.retained import GENERAL
from nbtune.errors import DataError, NbtuneError, RunError, SpecError
from nbtune.events import Control, Event, Failed, Note, Phase, Started, Step, Stopped
from nbtune.launch.environment import environment_of
from nbtune.training.checkpoints import newest_whole, step_of
from nbtune.training.controls import Controls, not_left_behind, read_until, to_repeat

if TYPE_CHECKING:
    from nbtune.data.encoded import Encoded, Labelled
    from nbtune.data.encoding import Encoder
    from nbtune.launch.live import Live
    from nbtune.methods import Method
    from nbtune.models.base import Base
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.store import RunFolder
    from nbtune.task import Task
    from nbtune.training.evaluation import Evaluator
    from nbtune.training.forgetting import Retained
    from nbtune.training.guarding import Guard
    from nbtune.training.loop import Start

__all__ = ["Job", "run_job", "steps_done"]

BACK_OFF: Final = 0.5
"""What the learning rate is multiplied by when a run goes back."""
BACK_OFF_TIMES: Final = 3


@dataclass(frozen=True)
class Job:
    """What there is to do; `again`: the run goes on from its last checkpoint, where it has one."""

    live: Live
    method: Method
    spec: FinetuneSpec
    task: Task
    source: Source
    again: bool = False


class _StoppedEarlyError(Exception):
    """The run was stopped before its first step: there is nothing to keep."""


def run_job(job: Job) -> None:
    """Executes a job to its end, whatever that is; never raises. A run that fails before it began leaves nothing behind."""
    live = job.live
    began = job.again
    try:
        if not (live.folder.path / "task.json").exists():
            job.task.save(live.folder.path)
        for event in _trained(job):
            began = began or isinstance(event, Started)
            live.emit(event)
    except BaseException as error:  # noqa: BLE001  it is handed to whoever waits for the run
        live.error = _as_ours(error)
        _tell_failure(job, error)
        traceback.clear_frames(error.__traceback__)  # which hold the model and the optimizer for as long as the error is kept
        if not began and not live.keeps and isinstance(live.error, NbtuneError):
            live.folder.discard()
    finally:
        live.folder.release()
        live.over.set()


def _trained(job: Job) -> Iterator[Event]:
    """All events of the run. Where its gradient stops being finite it goes back and on with a lower learning rate, a few times."""
    from nbtune.methods import finish
    from nbtune.models.shared import forget_own
    from nbtune.training.forgetting import watched
    from nbtune.training.loop import DivergedError

    controls = Controls(job.live.folder.path / "control.jsonl", read_until(job.live.folder.events()))
    again, training = job.again, None
    while True:
        forget_own(job.live.folder.id)  # what it held before: it is read again from its checkpoint
        try:
            retained = _retained(job)
            training = yield from _prepare(job, controls, again=again)
            yield from training.events() if retained is None else watched(training, retained, job.live.folder)
            finish(job.method, training.base, job.live.folder.id)
        except _StoppedEarlyError:
            yield Stopped(step=steps_done(job.live.folder), summary={})
        except DivergedError as error:
            yield from _back_off(job, error.step)
            again, training = True, None
            traceback.clear_frames(error.__traceback__)  # the optimizer's, which is made anew
            continue
        return


def _retained(job: Job) -> Retained | None:
    """The text that the model should not forget, read before anything is loaded."""
    spec = job.spec
    if spec.retain is None and not spec.replay and not spec.kl_to_base:
        return None
    from nbtune.methods import first_ids
    from nbtune.models.families import is_seq2seq
    from nbtune.objectives import WRITES
    from nbtune.training.forgetting import Retained

    if spec.objective not in WRITES or is_seq2seq(job.source.config):
        said = next(name for name in ("retain", "replay", "kl_to_base") if getattr(spec, name))
        message = f"{said} asks a model to go on with a text, which {job.source.name!r} does not under objective {spec.objective}"
        raise SpecError(message, hint=f"leave {said} out, or use objective sft and a decoder such as smollm2-135m")
    return Retained.of(spec.retain or GENERAL, first_ids(job.method, job.spec, job.source.config))


def _back_off(job: Job, step: int) -> Iterator[Event]:
    """Lowers the learning rate from the last checkpoint on; from the one before, where not one step after it was finite the last time.

    Raises:
        RunError: it was lowered often enough.
    """
    from nbtune.training.loop import DIVERGED_AFTER

    folder = job.live.folder
    done = [event for event in folder.events() if isinstance(event, Control) and event.action == "back_off"]
    rates = [event.values["learning_rate"] for event in folder.events() if isinstance(event, Control) and "learning_rate" in event.values]
    rate = (rates[-1] if rates else job.spec.learning_rate) * BACK_OFF
    if len(done) >= BACK_OFF_TIMES:
        message = f"the gradient was not finite at step {step}, nor at any learning rate down to {rate / BACK_OFF:.3g}"
        raise RunError(message, hint="look at the rows with %doctor, lower learning_rate and max_grad_norm, or use dtype float32")
    root, known = folder.path / "checkpoints", not_left_behind(folder.events())
    checkpoint, _ = newest_whole(root, known)
    if checkpoint is not None and done and done[-1].step == step_of(checkpoint) == step - DIVERGED_AFTER:
        checkpoint, _ = newest_whole(root, lambda saved: saved < done[-1].step and known(saved))
    where = step_of(checkpoint) if checkpoint is not None else 0
    place = f"its checkpoint of step {where}" if where else "the beginning"
    yield Note(level="warning", text=f"the gradient was not finite up to step {step}: back to {place} with learning_rate {rate:.3g}")
    yield Control(step=where, action="back_off", values={"learning_rate": rate}, position=read_until(folder.events()))


def _prepare(job: Job, controls: Controls, *, again: bool) -> Generator[Event, None, Any]:
    from nbtune.estimate import counted, fits, in_memory
    from nbtune.methods import attach, begin, is_estimator
    from nbtune.models.device import device_of
    from nbtune.models.families import can_pack, why_unpacked
    from nbtune.objectives import get, refuse_unsuited
    from nbtune.training.activations import remove_left
    from nbtune.training.forecast import Forecast
    from nbtune.training.loop import Training
    from nbtune.training.memory import PeakMemory

    live, spec = job.live, job.spec
    remove_left()
    yield from _phase(controls, "importing torch" if "torch" not in sys.modules else f"looking at {job.source.name}")
    from nbtune.models.shared import warm_up

    warm_up()
    refuse_unsuited(spec.objective, job.source.config)
    _refuse_full_fp16(job)
    _refuse_too_large(job)
    _, total_parameters = counted(job.method.name, spec, job.source)
    yield from _phase(controls, f"reading the tokenizer of {job.source.name}")
    encoder = _encoder(job)
    rows = yield from _encode(job, encoder)
    guard = yield from _guard(spec, encoder, len(rows))
    if is_estimator(job.method):
        fitting = yield from _fitting(job, controls, encoder, rows, total_parameters)
        return fitting
    spec, need = fits(job.method.name, spec, job.source, rows)  # decides about gradient_checkpointing: auto
    device = device_of(spec.device)
    there = in_memory(job.method.name, spec, job.source, need)
    forecast = Forecast(need, PeakMemory(device), device, in_memory=there)
    yield forecast.told
    yield from _phase(controls, f"loading {job.source.name}" + (f" as {spec.quantization}" if spec.quantization else ""))
    base = _load(job)
    packed = _packed(spec, can_pack(base.config))
    yield Note(level="info", text=packing_note(packed=packed, reason=why_unpacked(base.config)))
    yield from _phase(controls, f"attaching {job.method.name}")
    base.remove_adapter(live.folder.id)  # where the run goes on in the process that began it
    attach(job.method, base, spec, live.folder.id)
    begin(job.method, base, spec, live.folder.id, task=job.task, rows=rows)
    _keep(live.folder.id, base)
    _refuse_unfit(job, base, guard, again=again)
    live.folder.write_json("environment.json", environment_of(base))
    start = (yield from _where_to_go_on(live)) if again else None
    return Training(
        spec=spec,
        base=base,
        adapter=live.folder.id,
        objective=get(spec.objective),
        rows=rows,
        evaluator=_evaluator(job, base, encoder, packed),
        folder=live.folder.path,
        packed=packed,
        total_parameters=total_parameters,
        controls=controls,
        forecast=forecast,
        start=start,
        guard=guard,
    )


def _guard(spec: FinetuneSpec, encoder: Encoder, num_rows: int) -> Generator[Event, None, Guard | None]:
    """What keeps the model from forgetting, where that is asked for."""
    from nbtune.training.guarding import Guard

    guard = Guard.of(spec, encoder.tokenizer, encoder.first)
    steps = steps_in(num_rows, spec.step_rows, spec.num_train_epochs, spec.max_steps)
    if guard is not None and (told := guard.worn(steps)) is not None:
        yield Note(level="warning", text=told)
    return guard


def _refuse_unfit(job: Job, base: Base, guard: Guard | None, *, again: bool) -> None:
    """What only the loaded base can tell: that it is another one than before, or cannot be held to."""
    from nbtune.launch.attached import refuse_other_base

    if guard is not None:
        guard.check(base, job.live.folder.id)
    if again:
        refuse_other_base(job.live.folder, base)


def _where_to_go_on(live: Live) -> Generator[Event, None, Start]:
    """The newest checkpoint that is whole, with what was done to the run after it."""
    from nbtune.training.loop import Start

    checkpoint, damaged = newest_whole(live.folder.path / "checkpoints", not_left_behind(live.folder.events()))
    for text in damaged:
        yield Note(level="warning", text=f"{text}; the one before is used")
    step = step_of(checkpoint) if checkpoint is not None else -1  # what was done before the first step, too
    return Start(checkpoint, to_repeat(live.folder.events(), step, live.folder.spec.get("repeats", ())))


def _fitting(job: Job, controls: Controls, encoder: Encoder, rows: list[Any], total_parameters: int) -> Generator[Event, None, Any]:
    """What fits something to the frozen model's states."""
    from nbtune.data.encoding import encode_rows
    from nbtune.estimate.lengths import most_tokens
    from nbtune.models.device import device_of
    from nbtune.training.fitting import Fitting
    from nbtune.training.memory import PeakMemory

    if job.task.kind != "classification":
        message = f"{job.method.name} fits classifiers, and task {job.task.name!r} is of kind {job.task.kind}"
        raise SpecError(message, hint="use head, lora or another method that trains a head")
    memory = PeakMemory(device_of(job.spec.device))
    yield from _phase(controls, f"loading {job.source.name}" + (f" as {job.spec.quantization}" if job.spec.quantization else ""))
    base = _load(job)
    job.live.folder.write_json("environment.json", environment_of(base))
    yield from _phase(controls, "computing the states of the rows")
    dev, _ = encode_rows(encoder, job.task.dev, max_length=most_tokens(job.spec, job.source.config))
    return Fitting(
        spec=job.spec,
        base=base,
        task=job.task,
        rows=rows,
        dev=cast("list[Labelled]", dev),  # the encoder reads
        folder=job.live.folder.path,
        controls=controls,
        memory=memory,
        total_parameters=total_parameters,
    )


def _refuse_too_large(job: Job) -> None:
    """By the weights alone, which is quick to tell, before the whole step is followed."""
    from nbtune.methods import kind_of
    from nbtune.models.device import device_of, dtype_of
    from nbtune.models.loading import refuse_encoder, refuse_too_large
    from nbtune.models.shared import is_loaded

    spec, where = job.spec, device_of(job.spec.device)
    held: dict[str, Any] = {"dtype": spec.dtype, "quantization": spec.quantization, "device": spec.device}
    if job.source.bound is None and not is_loaded(job.source, kind=kind_of(job.method, spec), **held):
        refuse_encoder(job.source)
        refuse_too_large(job.source, dtype_of(spec.dtype, where), spec.quantization, where)


def _refuse_full_fp16(job: Job) -> None:
    if job.spec.dtype == "float16" and job.method.writes_base:
        message = f"{job.method.name} trains the base's own weights, and float16 cannot hold their updates"
        raise SpecError(message, hint="use dtype bfloat16 or float32, or lora")


def _phase(controls: Controls, text: str) -> Iterator[Event]:
    """Tells what goes on, unless it is not wanted any more."""
    stop = controls.stop_asked()
    if stop is not None:
        yield Control(step=0, action="stop", position=stop.position)  # none of this session
        raise _StoppedEarlyError
    yield Phase(text=text)


def _encoder(job: Job) -> Encoder:
    from nbtune.methods import first_ids
    from nbtune.objectives import encoder_for

    config = job.source.config
    return encoder_for(job.task, job.spec, job.source.tokenizer, config, first_ids(job.method, job.spec, config))


def _encode(job: Job, encoder: Encoder) -> Generator[Event, None, list[Encoded]]:
    from nbtune.data.doctor import diagnose
    from nbtune.models.families import context_of

    context = context_of(job.source.config)
    found = diagnose(
        job.task,
        encoder.tokenizer,
        max_length=job.spec.max_length - len(encoder.first),
        context=None if context is None else context - len(encoder.first),
        near=False,  # the split has looked for them
        max_eval_rows=job.spec.max_eval_rows,
        reading=encoder.reading,
    )
    found.refuse()
    for text in found.briefly():
        yield Note(level="warning", text=text)
    if encoder.sets:
        return [row.behind(encoder.first_of(item.prompt)) for row, item in zip(found.encoded, job.task.train, strict=True)]
    return [row.behind(encoder.first) for row in found.encoded]


def _load(job: Job) -> Base:
    from nbtune.methods import kind_of
    from nbtune.models.shared import own_base, shared_base

    held: dict[str, Any] = {"dtype": job.spec.dtype, "quantization": job.spec.quantization, "device": job.spec.device}
    kind = kind_of(job.method, job.spec)
    return own_base(job.source, **held) if job.method.writes_base else shared_base(job.source, kind=kind, **held)


def _keep(run_id: str, base: Base) -> None:
    from nbtune.models.shared import keep_tuned

    keep_tuned(run_id, base)


def _packed(spec: FinetuneSpec, possible: bool) -> bool:
    if spec.packing is True and not possible:
        message = "packing is true, and this model's attention takes no block mask, so rows would see each other"
        raise DataError(message, hint="set packing: auto")
    return possible and spec.packing is not False


def _evaluator(job: Job, base: Base, encoder: Encoder, packed: bool) -> Evaluator:
    from nbtune.data.encoding import encode_dev
    from nbtune.estimate.lengths import most_tokens
    from nbtune.objectives import get
    from nbtune.training.evaluation import Evaluator

    examples = job.task.dev[: job.spec.max_eval_rows]
    learnt = [item for item in examples if not job.task.is_held_out(item)]
    rows = encode_dev(encoder, learnt, max_length=most_tokens(job.spec, job.source.config))
    return Evaluator(
        task=job.task,
        base=base,
        adapter=job.live.folder.id,
        encoder=encoder,
        objective=get(job.spec.objective),
        examples=examples,
        rows=rows,
        packed=packed,
        num_samples=job.spec.num_samples,
    )


def _as_ours(error: BaseException) -> BaseException:
    """Running out of memory or disk is told as what to do about it; a bug of ours keeps its traceback."""
    from nbtune.models.device import is_out_of_memory

    if is_out_of_memory(error):
        return RunError("the device ran out of memory", hint="use a smaller per_device_train_batch_size or max_length, or quantization nf4")
    if isinstance(error, OSError) and not isinstance(error, NbtuneError):
        return RunError(f"the run could not write or read: {error}", hint="free some disk space")
    return error


def _tell_failure(job: Job, error: BaseException) -> None:
    ours = job.live.error
    clean = isinstance(ours, NbtuneError)
    event = Failed(
        step=steps_done(job.live.folder),
        kind=type(ours).__name__,
        message=ours.message if isinstance(ours, NbtuneError) else str(ours),
        hint=ours.hint if isinstance(ours, NbtuneError) else "",
        traceback="" if clean else "".join(traceback.format_exception(error)),
    )
    job.live.emit(event)


def steps_done(folder: RunFolder) -> int:
    """The last step that a run has told."""
    return max((event.step for event in folder.events() if isinstance(event, Step)), default=0)
