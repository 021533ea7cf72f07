"""A run's tuned model: from memory while it is there, else built again from the run's last checkpoint."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import RunError
from nbtune.events import Finished
from nbtune.launch.live import live_run
from nbtune.store import RunFolder

if TYPE_CHECKING:
    import torch

    from nbtune.inference import Engine
    from nbtune.methods import Method
    from nbtune.models.base import Base
    from nbtune.models.loading import LoadedModel, Source
    from nbtune.task import Task

__all__ = [
    "checkpoint_of",
    "engine_of",
    "last_checkpoint",
    "method_of",
    "own_model",
    "predictions",
    "refuse_other_base",
    "save_run",
    "source_of_run",
]

MOST_AWAY: Final = 0.02
"""Nats between the predictions of a merged model and of its parts: bfloat16 weights that a small update is added to lose some of it."""
_ASKED: Final = 8
_READ: Final = 256
_opening = threading.RLock()
_read_from: dict[str, Path] = {}
"""The checkpoint that a run's model in memory was read from; runs that this process trained are not here."""


def engine_of(folder: RunFolder, task: Task) -> Engine:
    """The engine that asks the run's model. While it trains, this is the model as it is between two steps.

    Raises:
        RunError: there is nothing trained yet.
    """
    from nbtune.inference import engine_for
    from nbtune.methods import first_ids, is_estimator
    from nbtune.objectives import encoder_for

    method, spec = method_of(folder)
    if is_estimator(method):
        return _fitted_engine(folder, task, spec)
    base = _base(folder)
    encoder = encoder_for(task, spec, base.tokenizer, base.config, first_ids(method, spec, base.config))
    return engine_for(base, encoder, folder.id)


def predictions(folder: RunFolder, task: Task, rows: Sequence[Any]) -> list[str]:
    """What the run's model answers to new rows.

    Raises:
        RunError: there is nothing trained yet, or it answers nothing.
        DataError: a row lacks a column.

    Warns:
        UserWarning: texts are cut, for the user's own line, two calls above this one.
    """
    from nbtune.inference.classifying import Classifier
    from nbtune.training.evaluation import answers

    if task.kind == "text":
        hint = "let it go on: run.generate([beginning]), or fill in: run.fill([text with a mask])"
        raise RunError(f"run {folder.name} learnt texts, and answers nothing", hint=hint)
    engine, prompts = engine_of(folder, task), task.prompts(rows)
    if isinstance(engine, Classifier) and (cut := engine.cut(prompts)):
        warnings.warn(f"run {folder.name}: {cut}", stacklevel=3)
    return answers(engine, task, prompts)


def _fitted_engine(folder: RunFolder, task: Task, spec: Any) -> Engine:
    """The frozen base with the classifier that was fitted to its states."""
    from nbtune.inference.classical import Classical, FeaturesEngine
    from nbtune.models.shared import shared_base
    from nbtune.objectives import encoder_for

    classical = Classical.open(last_checkpoint(folder))
    source, held = source_of_run(folder)
    base = shared_base(source, **held)
    refuse_other_base(folder, base)
    return FeaturesEngine(base, encoder_for(task, spec, base.tokenizer, base.config), classical=classical)


def own_model(folder: RunFolder) -> LoadedModel:
    """A copy that belongs to the caller, its adapter active, to be called as any model is."""
    from nbtune.methods import is_estimator
    from nbtune.models.loading import LoadedModel

    if is_estimator(method_of(folder)[0]):
        message = f"run {folder.name} trained nothing of its model: it is a classifier over frozen states"
        raise RunError(message, hint="ask it: run.predict(rows); or nbtune.models.load(...) for the model itself")
    base, _ = _restored(folder)
    _cast_learnt(base)
    model: Any = base.peft or base.model
    return LoadedModel(model, base.tokenizer, base.config, base.name)


def _cast_learnt(base: Base) -> None:
    """Gives what learnt in float32 the format of the weights beside it: without a lease's autocast nothing multiplies one with the other.

    An adapter's own layers stay, since peft casts what goes into them; the head that comes with it is none of these.
    """
    import torch

    for key, parameter in base.model.named_parameters():
        if parameter.dtype == torch.float32 and (base.peft is None or ".modules_to_save." in key):
            parameter.data = parameter.data.to(base.dtype)


def save_run(folder: RunFolder, target: Path, *, merge: bool) -> Path:
    """See `Run.save`."""
    from nbtune.methods import finish_saved, merges

    method, spec = method_of(folder)
    if target.exists() and any(target.iterdir()):
        raise RunError(f"the folder {str(target)!r} is not empty", hint="name a new folder")
    if merge and not merges(method, spec):
        what = "begins at what quantization loses, which" if method.merges else "adds layers of its own, which"
        message = f"{method.name} {what} cannot be merged into the base's weights"
        raise RunError(message, hint="save it without merge")
    last = last_checkpoint(folder)
    part = target.parent / f".part-{target.name}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if merge:
            _save_merged(folder, part)
        else:
            _copy_checked(last, part)
            finish_saved(method, part)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except OSError as error:
        message = f"the run could not be saved to {str(target)!r}: {error.strerror or error}"
        raise RunError(message, hint="free some disk space, or name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _copy_checked(last: Path, part: Path) -> None:
    """What a checkpoint holds of what was trained, read again and compared with the size and the sum that were written beside it."""
    from nbtune.training.checkpoints import LEARNT_FILES, check

    for file in LEARNT_FILES:
        if (last / file).exists():
            (part / file).write_bytes((last / file).read_bytes())
    problem = check(last) or next(
        (f"{path.name} is not what was written" for path in part.iterdir() if path.read_bytes() != (last / path.name).read_bytes()), ""
    )
    if problem:
        raise RunError(f"checkpoint {last.name} cannot be saved elsewhere: {problem}", hint="go on from the one before it: run.resume()")


def _save_merged(folder: RunFolder, part: Path) -> None:
    """A whole model, opened again and asked: what it says is what base and adapter say together.

    Raises:
        RunError: it is not, by more than the rounding of its number format.
    """
    from nbtune.models.loading import answer_alike, class_for
    from nbtune.models.quiet import quiet

    base, _ = _restored(folder, quantized=False)
    dtype = base.dtype
    task = _task(folder)
    prompts = [item.prompt for item in (*task.test, *task.train)[:_ASKED]]
    wanted = _outputs(base, folder.id, prompts)
    model: Any = base.peft.merge_and_unload() if base.peft is not None else base.model
    tied = getattr(base.config, "tie_word_embeddings", False)  # else a matrix that stands in several places is read for each of them
    apart = {} if tied else {"state_dict": {key: value.clone() for key, value in model.to(dtype).state_dict().items()}}
    model.to(dtype).save_pretrained(part, **apart)
    base.tokenizer.save_pretrained(part)
    source, _ = source_of_run(folder)
    with quiet():
        opened = class_for(source).from_pretrained(part, dtype=dtype, use_safetensors=True)
    answer_alike(opened)
    base.model, base.peft, base.kind = opened.to(base.device).eval(), None, None
    away = _away(wanted, _outputs(base, None, prompts), task.kind if base.labels else "")
    if not away <= MOST_AWAY:
        message = f"merged, the model says something else: its predictions are {away:.2g} nats away (Kullback-Leibler) from the run's"
        raise RunError(message, hint="save it without merge, or train on a float32 base: dtype float32")


def _away(wanted: torch.Tensor, said: torch.Tensor, kind: str) -> float:
    """Mean Kullback-Leibler divergence, in nats, of what outputs [prompts, any] mean under a head of that kind ("": the next token).

    Of classes and tokens that of their distribution, of several labels the sum over these, of a number (in standard deviations of the
    training answers) that of normal distributions around the two.
    """
    from torch.nn import functional

    if kind == "regression":
        nats = (wanted - said).square() / 2
    elif kind == "multi-label":
        p = wanted.sigmoid()
        yes, no = (functional.logsigmoid(sign * wanted) - functional.logsigmoid(sign * said) for sign in (1, -1))
        nats = p * yes + (1 - p) * no
    else:
        nats = functional.kl_div(said.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="none")
    return float(nats.sum(-1).mean())


def _outputs(base: Base, adapter: str | None, prompts: Sequence[str]) -> torch.Tensor:
    """What the model gives at the last token of each prompt [prompts, any], float32."""
    import torch

    from nbtune.models.families import context_of, one_text

    found = []
    most = min(_READ, context_of(base.config) or _READ)
    for prompt in prompts:
        ids = torch.tensor([base.tokenizer(prompt)["input_ids"][-most:]], device=base.device)
        with base.lease(adapter if adapter is not None and base.has_adapter(adapter) else None) as model:
            found.append(model(**one_text(base.model, ids)).logits[0, -1].float().cpu())
    return torch.stack(found)


def _base(folder: RunFolder) -> Base:
    from nbtune.models.shared import keep_tuned, tuned_base

    with _opening:
        base = tuned_base(folder.id)
        if base is None:
            live = live_run(folder.id)
            if live is not None and not live.over.is_set():
                raise RunError(f"run {folder.name} is still being prepared", hint="wait for it: run.wait()")
            base, _read_from[folder.id] = _restored(folder, shared=True)
            keep_tuned(folder.id, base)
        elif folder.id in _read_from and folder.checkpoints()[-1:] not in ([], [_read_from[folder.id]]):
            _read_from[folder.id] = _read_newer(folder, base)  # another process trains it and has written one since
        return base


def _restored(folder: RunFolder, *, shared: bool = False, quantized: bool = True) -> tuple[Base, Path]:
    """The base (the shared one, where the method leaves it as it is; unquantized to merge into) with the last checkpoint on, and which."""
    from nbtune.methods import kind_of
    from nbtune.models.shared import own_base, shared_base
    from nbtune.models.tying import say_untied

    last_checkpoint(folder)  # there is one: said before anything is loaded
    method, spec = method_of(folder)
    source, held = source_of_run(folder)
    if not quantized:
        held["quantization"] = None
    base = shared_base(source, kind=kind_of(method, spec), **held) if shared and not method.writes_base else own_base(source, **held)
    refuse_other_base(folder, base)
    last = _put_on(folder, base)
    if not shared and base.peft is None:
        say_untied(base.model)  # it may be written
    return base, last


def _put_on(folder: RunFolder, base: Base) -> Path:
    """Adds what was trained to a base, as the last checkpoint has it, and folds what only training needs."""
    from nbtune.methods import attach, finish

    method, spec = method_of(folder)
    attach(method, base, spec, folder.id)
    last = _read_last(folder, base)
    finish(method, base, folder.id)
    return last


def _read_newer(folder: RunFolder, base: Base) -> Path:
    """The same where an older checkpoint is on; what was folded has no place for what is trained, and is put on anew."""
    from nbtune.methods import folds

    if not folds(method_of(folder)[0]):
        return _read_last(folder, base)
    base.remove_adapter(folder.id)
    return _put_on(folder, base)


def source_of_run(folder: RunFolder) -> tuple[Source, dict[str, Any]]:
    """The model that a run was trained on, with the head that its objective takes, and how it is held."""
    from nbtune.objectives import source_for

    _, spec = method_of(folder)
    source = source_for(spec.objective, spec.model, _task(folder) if spec.objective != "sft" else None)
    dtype = spec.dtype
    if folder.spec.get("bound") and dtype is None:  # as the object was held, so that its weights can be told from those of its name
        dtype = str(_environment(folder).get("dtype") or "").removeprefix("torch.") or None
    return source, {"dtype": dtype, "quantization": spec.quantization, "device": spec.device}


def _task(folder: RunFolder) -> Task:
    from nbtune.task import Task

    return Task.open(folder.path)


def refuse_other_base(folder: RunFolder, base: Base) -> None:
    """Refuses a base that is not what the run was trained on, though its name is; one held in another format is not looked at.

    Raises:
        RunError: it has other weights.
    """
    from nbtune.models.fingerprint import fingerprint

    kept = _environment(folder)
    same = kept.get("dtype") == str(base.dtype) and kept.get("quantization") == base.quantization
    if same and "weights" in kept and kept["weights"] != fingerprint(base):
        message = f"{base.name!r} is not the model that run {folder.name} was trained on: its weights are others"
        raise RunError(message, hint="put the model back that was there, or train anew on this one")


def _environment(folder: RunFolder) -> dict[str, Any]:
    """What the run was trained in; nothing where it never came so far, or was cut short."""
    try:
        return dict(json.loads((folder.path / "environment.json").read_text()))
    except (OSError, ValueError):
        return {}


def method_of(folder: RunFolder) -> tuple[Method, Any]:
    """The run's method and its options."""
    from nbtune.methods import get

    said = folder.spec
    method = get(said["method"])
    return method, method.spec.build({key: value for key, value in said.items() if key in method.spec.model_fields and key != "name"})


def _read_last(folder: RunFolder, base: Base) -> Path:
    """Puts the last checkpoint on; the process that trains may remove it for a newer one while it is read."""
    while True:
        last = last_checkpoint(folder)
        try:
            base.restore(folder.id, last)
        except FileNotFoundError:
            if last_checkpoint(folder) == last:
                raise  # it is damaged
        else:
            return last


def checkpoint_of(folder: RunFolder, step: int | None) -> Path:
    """The checkpoint of a step (None: the newest).

    Raises:
        RunError: there is none, with those that there are.
    """
    found = folder.checkpoints()
    if step is None and found:
        return found[-1]
    chosen = [path for path in found if path.name == f"step-{step or 0:06d}"]
    if not chosen:
        there = ", ".join(str(int(path.name.removeprefix("step-"))) for path in found) or "none"
        message = f"run {folder.name} has no checkpoint of step {step}" if step is not None else f"run {folder.name} has no checkpoint"
        raise RunError(message, hint=f"there are: {there}; save_steps and save_total_limit keep more, run.checkpoint() makes one")
    return chosen[0]


def last_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint that the run is: the last, or the best where that was asked for.

    Raises:
        RunError: there is none yet.
    """
    found = folder.checkpoints()
    if not found:
        raise RunError(f"run {folder.name} has no checkpoint yet", hint="wait for its first one, or stop it: run.stop() writes one")
    ends = [event.summary.get("checkpoint_step") for event in folder.events() if isinstance(event, Finished)]
    kept = [path for path in found if ends and path.name == f"step-{ends[-1] or 0:06d}"]
    return (kept or found)[-1]
