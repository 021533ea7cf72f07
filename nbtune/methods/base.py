"""What a method is: how parameters are adapted. One file and one line in the registry each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.encoded import Encoded
    from nbtune.models.base import Base
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = [
    "Facts",
    "Method",
    "attach",
    "begin",
    "finish",
    "finish_saved",
    "first_ids",
    "folds",
    "is_estimator",
    "kind_of",
    "merges",
    "remembered",
    "settled",
    "tier",
]


@dataclass(frozen=True)
class Facts:
    """What is known of a model before its weights are read."""

    source: Source
    quantization: str | None

    def __post_init__(self) -> None:
        """An object that is quantized already says so itself."""
        if self.quantization is None and self.source.bound is not None:
            from nbtune.models.quantization import held_as

            object.__setattr__(self, "quantization", held_as(self.source.bound.model))

    @property
    def name(self) -> str:
        """What it was asked for by."""
        return self.source.name

    @property
    def config(self) -> PretrainedConfig:
        """Its configuration."""
        return self.source.config

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, which takes a moment to read: for those alone that need it."""
        return self.source.tokenizer

    @property
    def num_blocks(self) -> int:
        """Transformer blocks, by the config's usual names (0: the config does not say); beside an encoder the decoder's."""
        from nbtune.models.families import num_blocks

        return num_blocks(self.config)


class Method(Protocol):
    """A way to adapt a base.

    `spec` is its options (the common ones of `FinetuneSpec` and its own). With `writes_base` it trains the base's own weights, so
    it is given a copy; else it adds an adapter named by the run to a shared base, of `kind` by peft's name.
    What `merges` can be made part of the base's own weights. Some methods have more, which the functions below ask for: `estimates`,
    `virtual_tokens`, `requires_of`, `settled`, `begin`, `fold`, `remembers`, `shares`.
    """

    name: str
    summary: str
    paper: str
    spec: type[FinetuneSpec]
    writes_base: bool
    kind: str | None
    merges: bool

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a model or an option that cannot work, before anything is loaded.

        Raises:
            ModelError, SpecError: with what does work.
        """

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Makes exactly the intended parameters trainable, as the adapter `name` or in the base itself."""


def kind_of(method: Method, spec: Any) -> str | None:
    """What a base is asked for to put such an adapter on: the method's `kind`, and the values of the options that it `shares`.

    What these options decide peft keeps once for all adapters on a base, as the first one had it. None: it needs no base of a kind.
    """
    said = {name: getattr(spec, name) for name in getattr(method, "shares", ())}
    return f"{method.kind} {json.dumps({name: _in_order(value) for name, value in said.items()})}" if said else method.kind


def _in_order(value: object) -> object:
    return sorted(value) if isinstance(value, tuple) else value


def is_estimator(method: Method) -> bool:
    """Whether it trains nothing of the model by gradients, but fits something to what the frozen model gives (`estimates`)."""
    return bool(getattr(method, "estimates", False))


def merges(method: Method, spec: Any) -> bool:
    """Whether what it trains with these options can be made part of the base's own weights (`merges`, and `merges_with(spec)`)."""
    return method.merges and (not hasattr(method, "merges_with") or method.merges_with(spec))


def remembered(method: Method) -> int:
    """Bytes that it remembers from step to step of each trained parameter, beside the optimizer's (`remembers`)."""
    return int(getattr(method, "remembers", 0))


def tier(method: Method) -> int:
    """1, or 2 for what is contract tested and of which nothing more is claimed."""
    return int(getattr(method, "tier", 1))


def attach(method: Method, base: Base, spec: Any, name: str) -> None:
    """Puts the method on the base under `name`, and has the heads that the base brings trained with it.

    Raises:
        SpecError, ModelError: what the method refuses.
    """
    try:
        method.attach(base, spec, name)
    except BaseException:
        if base.peft is None:  # with nothing on it, it will do for any
            base.held_for = None
        raise
    base.held_for = kind_of(method, spec) or base.held_for
    if base.heads and not is_estimator(method):
        base.begin_heads(name, spec.seed)


def first_ids(method: Method, spec: Any, config: PretrainedConfig) -> tuple[int, ...]:
    """Ids in front of each prompt: beyond the vocabulary, those of the virtual tokens of a soft prompt; none for other methods.

    A method that has some says how many by `virtual_tokens(spec)`.
    """
    from nbtune.models.families import vocabulary

    count = method.virtual_tokens(spec) if hasattr(method, "virtual_tokens") else 0
    first = vocabulary(config) if count else 0
    return tuple(range(first, first + count))


def settled(method: Method, spec: Any, task: Task) -> Any:
    """The spec with what the task decides (by the method's `settled(task, spec)`); most methods leave it as it is.

    Raises:
        SpecError: there is not in the task what the method begins with (by its `requires_of(task, spec)`), with what does work.
    """
    if hasattr(method, "requires_of"):
        method.requires_of(task, spec)
    return method.settled(task, spec) if hasattr(method, "settled") else spec


def begin(method: Method, base: Base, spec: Any, name: str, *, task: Task, rows: Sequence[Encoded]) -> None:
    """Lets what was attached begin with what is learnt, by the method's `begin`; a run that goes on reads its checkpoint over it."""
    if hasattr(method, "begin"):
        method.begin(base, spec, name, task, rows)


def folds(method: Method) -> bool:
    """Whether it trains something of which only the outcome is kept.

    Such a method has `fold(tensors, config)`, which gives an adapter's {name: tensor} as they stay and what changes in its configuration.
    Checkpoints hold what is trained, so that it can go on; whoever asks the model, or saves the run, has the outcome.
    """
    return hasattr(method, "fold")


def finish(method: Method, base: Base, name: str) -> None:
    """Puts the outcome of what was trained under `name` in its place, once training is over; most methods have nothing to do."""
    if not folds(method):
        return
    trained = base.state(name)
    tensors, changes = method.fold(trained.tensors, trained.config.to_dict())  # type: ignore[attr-defined, union-attr]
    if changes:
        base.replace(name, tensors, changes)


def finish_saved(method: Method, folder: Path) -> None:
    """The same in the two files of an adapter that was saved."""
    if not folds(method):
        return
    from safetensors.torch import load_file, save_file

    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    config = json.loads(settings.read_text())
    tensors, changes = method.fold(load_file(weights), config)  # type: ignore[attr-defined]
    save_file(tensors, weights, metadata={"format": "pt"})
    settings.write_text(json.dumps({**config, **changes}, indent=2, sort_keys=True))
