"""What the methods have in common that put something of peft's on chosen linear layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator

from nbtune.errors import ModelError, SpecError, did_you_mean
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["EVERY_QUANTIZATION", "LAYERS", "LayerTuner", "LayersSpec", "refuse_unknown"]

EVERY_QUANTIZATION: Final = frozenset({"nf4", "fp4", "int8"})

LAYERS: Final = ("target_modules", "layers_to_transform")
"""The options that say which layers, for `shares`."""


def _modules(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) and value != "all-linear" else value


def _numbers(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[Literal["all-linear"] | tuple[str, ...], BeforeValidator(_modules)]


class LayersSpec(FinetuneSpec):
    """Which layers; all linear ones are the default."""

    target_modules: Names = option(
        "all-linear",
        "layers that are adapted: all-linear, or names such as [q_proj, v_proj]",
        aliases=("lora_target", "lora_target_modules"),
    )
    layers_to_transform: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers)] = option(
        None, "numbers of the blocks that get one; left out: all"
    )


class LayerTuner(ABC):
    """A method whose tuner is peft's; what each one adds is `config`.

    `kind` is peft's name of the tuner: a base holds adapters of one kind at a time. `quantizations` are those of the base on which peft's
    tuner works; `takes_conv1d` tells whether it knows GPT-2's way to write a linear layer. `shares` are options that decide of something
    which peft keeps once for all adapters on a base: only those share one of which they are the same.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    kind: ClassVar[str]
    spec: ClassVar[type[FinetuneSpec]] = LayersSpec
    writes_base: ClassVar[bool] = False
    merges: ClassVar[bool] = True
    quantizations: ClassVar[frozenset[str]] = EVERY_QUANTIZATION
    takes_conv1d: ClassVar[bool] = True
    shares: ClassVar[tuple[str, ...]] = ()
    rank: ClassVar[str] = ""
    """The option that is the rank of a product beside a weight, so that more than the weight's own is waste; empty: there is none."""

    @abstractmethod
    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """The configuration for peft; `layers` holds its `target_modules` and `layers_to_transform`."""

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a quantization that peft's tuner cannot do, and blocks that are not there.

        Raises:
            ModelError: the quantization.
            SpecError: a block number that the model does not have, or that two stacks of blocks have.
        """
        from nbtune.models.families import is_seq2seq

        if facts.quantization is not None and facts.quantization not in self.quantizations:
            works = ", ".join(sorted(self.quantizations))
            message = f"{self.name} does not work on a base held as {facts.quantization}"
            raise ModelError(message, hint=f"use quantization {works}, or lora" if works else "leave quantization out, or use lora")
        if spec.layers_to_transform and is_seq2seq(facts.config):
            message = f"layers_to_transform numbers blocks, and {facts.name!r} has an encoder's and a decoder's, both counted from 0"
            raise SpecError(message, hint="leave it out, or give target_modules full names, as encoder.block.0.layer.0.SelfAttention.q")
        beyond = [number for number in spec.layers_to_transform or () if facts.num_blocks and not 0 <= number < facts.num_blocks]
        if beyond:
            message = f"layers_to_transform has {beyond[0]}, and {facts.name!r} has blocks 0 to {facts.num_blocks - 1}"
            raise SpecError(message, hint="count blocks from 0")

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the adapter.

        Raises:
            SpecError: `target_modules` names no layer of the model, or the rank is more than one of them has.
            ModelError: its layers are of a class that peft's tuner does not know.
        """
        self._refuse_conv1d(base)
        targets: str | list[str] = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
        if not isinstance(targets, str):
            refuse_unknown(base.model, targets)
        elif spec.layers_to_transform:
            targets = _linear_layers(base.model)  # peft takes numbers of blocks beside a list of names alone
        if self.rank:
            _refuse_rank(base.model, targets, self.rank, getattr(spec, self.rank))
        chosen = list(spec.layers_to_transform) if spec.layers_to_transform else None
        config = self.config(base, spec, {"target_modules": targets, "layers_to_transform": chosen})
        base.add_adapter(name, config, seed=spec.seed)

    def _refuse_conv1d(self, base: Base) -> None:
        from transformers.pytorch_utils import Conv1D

        if not self.takes_conv1d and any(isinstance(module, Conv1D) for module in base.model.modules()):
            message = f"{self.name} does not work on {base.name!r}, whose layers are transformers' Conv1D"
            raise ModelError(message, hint="use lora, vera, fourierft, ia3 or adapter")


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers within a block, as "all-linear" means them; what adapters have put there is left out."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from nbtune.models.families import blocks

    layers = blocks(model)
    adapted = [key for key, module in layers.named_modules() if isinstance(module, BaseTunerLayer)]
    inside = tuple(f"{key}." for key in adapted)
    plain = [key for key, module in layers.named_modules() if isinstance(module, nn.Linear | Conv1D) and not key.startswith(inside)]
    return sorted({key.rsplit(".", 1)[-1] for key in (*plain, *adapted)})


def _refuse_rank(model: PreTrainedModel, targets: str | list[str], option: str, rank: int) -> None:
    """Refuses a rank above that of the smallest weight it is for.

    Raises:
        SpecError: with that weight.
    """
    names = set(_linear_layers(model)) if isinstance(targets, str) else {target.rsplit(".", 1)[-1] for target in targets}
    sizes: dict[str, tuple[int, int]] = {}
    for key, module in model.named_modules():
        layer: Any = getattr(module, "base_layer", module)
        inner, outer = getattr(layer, "in_features", getattr(layer, "nx", 0)), getattr(layer, "out_features", getattr(layer, "nf", 0))
        if key.rsplit(".", 1)[-1] in names and inner and outer:
            sizes[key] = (outer, inner)
    key, shape = min(sizes.items(), key=lambda item: min(item[1]), default=("", (rank, rank)))
    if rank > min(shape):
        message = f"{option} is {rank}, and the weight of {key} is {shape[0]} x {shape[1]}: no change of it has a rank above {min(shape)}"
        raise SpecError(message, hint=f"use {option} {min(shape)} or less, or target_modules without {key.rsplit('.', 1)[-1]}")


def refuse_unknown(model: nn.Module, targets: list[str]) -> None:
    """Refuses names that no module of the model ends in.

    Raises:
        SpecError: with the nearest that there is.
    """
    from torch import nn

    layers = {key.rsplit(".", 1)[-1] for key, module in model.named_modules() if isinstance(module, nn.Linear)} - {"base_layer", "default"}
    known = {name for name in layers if not name.startswith("lora_")}
    paths = [key for key, _ in model.named_modules()]
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            raise SpecError(f"target_modules: the model has no module {target!r}", hint=did_you_mean(target, known))
