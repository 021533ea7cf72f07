"""`nbtune.finetune`: from words to a run that is on its way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.retained import GENERAL
from nbtune.errors import Problem, RunError, SpecError
from nbtune.events import Control, Evaluation, Note, Queued, Step
from nbtune.launch.attached import checkpoint_of
from nbtune.launch.job import Job, steps_done
from nbtune.launch.live import Live, forget_live
from nbtune.launch.process import refuse_to_send, start_process
from nbtune.launch.signals import stop_on_sigterm
from nbtune.launch.thread import start_thread
from nbtune.methods import get, settled
from nbtune.run import Run
from nbtune.store import RunFolder
from nbtune.training.checkpoints import read_state, step_of
from nbtune.training.controls import to_repeat
from nbtune.training.forgetting import KEPT

if TYPE_CHECKING:
    from nbtune.methods import Method
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["finetune", "fork_run", "resume_run", "spec_of"]

_FIXED: Final = frozenset({"task", "model", "quantization", "dtype", "optim", "objective", "pooling"})
"""Options beside the method's own that a fork cannot change: they decide what the checkpoint's tensors are."""


def finetune(
    method: str,
    *,
    task: Task,
    model: Any = None,
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
        model: catalogue name, local folder, hub id, or a bound model (which stays as it is); left out: the objective's own.
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
    from nbtune.objectives import objective_for, source_for
    from nbtune.task import Task

    if not isinstance(task, Task):
        raise SpecError(
            f"task is a nbtune.Task, not {type(task).__name__}", hint="make one: nbtune.Task(data=..., prompt=..., completion=...)"
        )
    chosen = get(method)
    objective = objective_for(chosen, {**options, "model": model}, task)
    source = source_for(objective, model, task)
    values = {"quantization": quantization, "dtype": dtype, "seed": seed, **options, "objective": objective}
    retain = options.get("retain")
    if isinstance(retain, str | Path) and str(retain) != GENERAL:
        values["retain"] = str(Path(retain).expanduser().absolute())  # whichever folder the run goes on in
    spec = chosen.spec.build(
        {**values, "task": task.name, "model": source.path or source.name, "name": name or f"{task.name}_{chosen.name}".replace("-", "_")}
    )
    spec = settled(chosen, spec, task)
    _refuse_without_looks(spec, task)
    said = {"method": chosen.name, **spec.model_dump(mode="json", exclude={"name"}), "bound": source.bound is not None}
    if spec.launch == "process":
        refuse_to_send(source, task)
    folder = RunFolder.create(str(spec.name), said)
    try:
        _launch(folder, chosen, spec, task, source)
    except BaseException:
        folder.discard()
        raise
    return Run(folder, task)


def _refuse_without_looks(spec: FinetuneSpec, task: Task) -> None:
    """Refuses what goes by looks at dev where there is nothing to look at."""
    asked = " and ".join(name for name in ("early_stopping_patience", "load_best_model_at_end") if getattr(spec, name))
    if asked and all(task.is_held_out(item) for item in task.dev[: spec.max_eval_rows]):
        message = f"{asked} goes by looks at the dev rows, and task {task.name!r} has none"
        raise SpecError(message, hint=f"give it some: split: {{dev: 0.1}}, or leave {asked} out")


def spec_of(folder: RunFolder) -> FinetuneSpec:
    """The spec that a run was started with."""
    said = folder.spec
    known = get(said["method"]).spec
    return known.build({key: value for key, value in said.items() if key in known.model_fields})


def resume_run(folder: RunFolder, task: Task, model: Any = None) -> None:
    """Starts a run's training again from its last checkpoint; see `Run.resume`.

    Raises:
        RunError: it is finished, another process has it, or its model was an object that is not given again.
    """
    folder.take()
    try:
        if folder.status() == "finished":  # looked at as its owner: another process may just have gone on with it
            raise RunError(f"run {folder.name} is finished", hint="run.fork(num_train_epochs=...) goes on from it")  # noqa: TRY301
        source = _source_again(folder, model, task)
        asked = folder.path / "control.jsonl"
        position = asked.stat().st_size if asked.exists() else 0  # what was asked of it before is over
        folder.append(Control(step=steps_done(folder), action="resume", position=position))
        folder.append(Queued())
        _launch(folder, get(folder.spec["method"]), spec_of(folder), task, source, again=True)
    except BaseException:
        folder.release()
        raise


def fork_run(folder: RunFolder, task: Task, step: int | None, name: str | None, changes: dict[str, Any]) -> Run:
    """See `Run.fork`."""
    checkpoint = checkpoint_of(folder, step)
    at = read_state(checkpoint)["step"]
    method, settings = get(folder.spec["method"]), read_state(checkpoint)["settings"]
    before = spec_of(folder).model_copy(update=settings)  # as the parent was at that step
    values = {key: value for key, value in before.model_dump(mode="python").items() if value is not None and key != "name"}
    names = method.spec.names()
    given = {names.get(key.replace("-", "_"), key): value for key, value in changes.items()}
    settings = {key: value for key, value in settings.items() if key not in given}
    spec = method.spec.build({**values, **given, "name": name or f"{folder.name[:58]}_fork"})
    moved = _differing(before, spec)
    _refuse_without_looks(spec, task)
    later = _done_later(folder, at)
    same = not set(moved) - {"launch"}
    source = _source_again(folder, None, task)
    said = {"method": method.name, **spec.model_dump(mode="json", exclude={"name"}), "parent": folder.id, "parent_step": at}
    said |= ({"repeats": later} if same else {}) | {key: value for key, value in folder.spec.items() if key == "combined"}
    best, void = _best_so_far(folder, checkpoint, spec, moved)
    child = RunFolder.create(str(spec.name), said)
    try:
        _copy_run(folder, child, checkpoint, best, {"settings": settings, **_decided_anew(moved), **void})
    except OSError as error:
        child.discard()
        raise RunError(f"the fork could not be written: {error.strerror or error}", hint="free some disk space") from error
    differing = [f"{key} {old} → {new}" for key, (old, new) in moved.items()] or ["nothing differs"]
    differing += [_said(one) for one in later if one["action"] == "set" and not same]
    child.append(Note(level="info", text=f"forked from {folder.name} after step {at}: {', '.join(differing)}"))
    try:
        _launch(child, method, spec, task, source, again=True)
    except BaseException:
        child.discard()
        raise
    return Run(child, task)


def _differing(before: FinetuneSpec, spec: FinetuneSpec) -> dict[str, tuple[Any, Any]]:
    """{option: (as it was, as it is)}.

    Raises:
        SpecError: one of them decides what is trained.
    """
    pairs = {key: (getattr(before, key), getattr(spec, key)) for key in type(spec).model_fields if key != "name"}
    moved = {key: (old, new) for key, (old, new) in pairs.items() if old != new}
    fixed = {item.name for item in spec.options() if item.group == "method"} | _FIXED
    refused = [
        Problem(f"{key} cannot differ in a fork: the checkpoint was trained with {moved[key][0]!r}", "start a new run")
        for key in sorted(fixed & set(moved))
    ]
    if refused:
        raise SpecError.of(refused)
    return moved


def _done_later(folder: RunFolder, step: int) -> list[dict[str, Any]]:
    """What was done to a run from `step` on, as a fork's spec keeps it."""
    found = to_repeat(folder.events(), step, folder.spec.get("repeats", ()))
    return [{"step": at, "action": one.action, "values": one.values} for at in sorted(found) for one in found[at]]


def _said(left_out: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key} {value}" for key, value in left_out["values"].items())
    return f"{values} after step {left_out['step']} is not repeated"


def _decided_anew(moved: Mapping[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's state other options make void: whether frozen blocks are kept, how many rows fit at once."""
    void: dict[str, Any] = {}
    if {"activation_cache", "neftune_noise_alpha", "packing"} & set(moved):
        void["cached"] = None
    if "per_device_train_batch_size" in moved:
        void["micro_rows"] = moved["per_device_train_batch_size"][1]
    return void


def _best_so_far(folder: RunFolder, checkpoint: Path, spec: FinetuneSpec, moved: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """The best checkpoint before this one, where a fork may end with it; and what is void where it is gone, or best by another measure."""
    step = read_state(checkpoint)["best_step"]
    path = checkpoint.with_name(f"step-{step or 0:06d}")
    needed = step is not None and spec.load_best_model_at_end
    if "metric_for_best_model" in moved or (needed and path not in folder.checkpoints()):
        return None, {"best": None, "best_step": None, "best_scores": {}, "looks_since_best": 0}
    return path if needed and path != checkpoint else None, {}


def _copy_run(folder: RunFolder, child: RunFolder, checkpoint: Path, best: Path | None, changed: dict[str, Any]) -> None:
    """Rows, task, the checkpoint with what is `changed` in its state, the best one before it as it is, and the curves up to it."""
    for file in ("data.parquet", "task.json", KEPT):
        if file != KEPT or (folder.path / file).exists():
            shutil.copyfile(folder.path / file, child.path / file)
    if best is not None:
        shutil.copytree(best, child.path / "checkpoints" / best.name)
    part = child.path / "checkpoints" / f".part-{checkpoint.name}"
    shutil.copytree(checkpoint, part)
    state = {**read_state(checkpoint), **changed}
    (part / "state.json").write_text(json.dumps(state))
    for event in folder.events():
        if isinstance(event, Step | Evaluation) and event.step <= step_of(checkpoint):
            child.append(event)
    part.rename(part.with_name(checkpoint.name))


def _source_again(folder: RunFolder, model: Any, task: Task) -> Source:
    from nbtune.objectives import source_for

    if model is None and folder.spec.get("bound"):
        raise RunError(f"the model of run {folder.name} was an object of a notebook", hint="give it again: run.resume(model=...)")
    return source_for(folder.spec.get("objective", "sft"), model if model is not None else folder.spec["model"], task)


def _launch(folder: RunFolder, method: Method, spec: FinetuneSpec, task: Task, source: Source, *, again: bool = False) -> None:
    """Has the run of a folder that this process owns wait for its device, in a thread here or in a process of its own.

    Raises:
        RunError: its folder or the queue cannot be written.
    """
    stop_on_sigterm()
    if spec.launch == "thread":
        start_thread(Job(Live(folder), method, spec, task, source, again=again))
        return
    try:
        if not (folder.path / "task.json").exists():
            task.save(folder.path)
    except OSError as error:
        message = f"the run's folder {folder.path} cannot be written: {error.strerror or error}"
        raise RunError(message, hint="free some disk space") from error
    forget_live(folder.id)
    start_process(folder, spec.device)
