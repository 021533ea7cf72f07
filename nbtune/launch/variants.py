"""A run's model at another checkpoint, or at another strength of what was trained: beside the run's own, which stays as it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from nbtune.errors import RunError, SpecError
from nbtune.launch.attached import checkpoint_of, last_checkpoint, method_of, refuse_other_base, source_of_run

if TYPE_CHECKING:
    import torch

    from nbtune.inference import Engine
    from nbtune.models.base import Base
    from nbtune.store import RunFolder
    from nbtune.task import Task

__all__ = ["MOST", "own_weights", "variant_engine"]

MOST: Final = 2.0
"""The greatest strength: what is beyond twice is noise."""


def variant_engine(folder: RunFolder, task: Task, *, step: int | None, strength: float) -> Engine:
    """The engine that asks the run's model as it was after `step` (None: at its end), what was trained counting `strength` times.

    An adapter is put on the shared base once more, under a name of its own; of a method that trains the base's weights a copy is made.

    Raises:
        SpecError: a strength out of range.
        RunError: there is no such checkpoint, what was trained has no strength, or its model was an object.
    """
    from nbtune.inference import engine_for
    from nbtune.methods import attach, finish, first_ids, is_estimator, kind_of
    from nbtune.models.shared import own_base, shared_base
    from nbtune.models.strength import set_strength
    from nbtune.objectives import encoder_for

    if not 0 <= strength <= MOST:
        raise SpecError(f"a strength is a number from 0 to 2, not {strength!r}", hint="0 is the base, 1 what was trained")
    method, spec = method_of(folder)
    if is_estimator(method):
        message = f"run {folder.name} is a classifier over frozen states: it has no other strength and no steps"
        raise RunError(message, hint="name a run of a method that trains, such as lora")
    if folder.spec.get("bound"):
        message = f"run {folder.name} was trained on an object of a notebook, of which there is no other copy"
        raise RunError(message, hint="train it on a model that has a name or a folder")
    checkpoint = last_checkpoint(folder) if step is None else checkpoint_of(folder, step)
    source, held = source_of_run(folder)
    base = own_base(source, **held) if method.writes_base else shared_base(source, kind=kind_of(method, spec), **held)
    refuse_other_base(folder, base)
    # No part of it is the run's id: who looks for the run's own tensors by name must not find these.
    name = f"variant-{hashlib.sha256(f'{folder.id} {checkpoint.name} {strength!r}'.encode()).hexdigest()[:16]}"
    base.remove_adapter(name)
    attach(method, base, spec, name)
    base.restore(name, checkpoint)
    finish(method, base, name)
    if strength != 1:
        try:
            set_strength(base, name, strength, own_weights(folder, base, name))
        except RunError:
            base.remove_adapter(name)
            raise
    return engine_for(base, encoder_for(task, spec, base.tokenizer, base.config, first_ids(method, spec, base.config)), name)


def own_weights(folder: RunFolder, base: Base, name: str) -> dict[str, torch.Tensor]:
    """The base's own weights of what is trained under `name`, where parts of it are; of an adapter none."""
    if base.has_adapter(name):
        return {}
    from nbtune.models.shared import shared_base

    source, held = source_of_run(folder)
    named = shared_base(source, **held).model.named_parameters(remove_duplicate=False)
    plain = {
        key.replace(".base_layer", "").replace(".original_module", ""): value.detach() for key, value in named
    }  # others' adapters are on it
    return {key: plain[key] for key in base.trained(name)}
