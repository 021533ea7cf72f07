"""LoRA: a low-rank update beside each linear layer (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

The layer W x becomes W x + (alpha / r) B A x, with A [r, in] and B [out, r]; B starts at zero, so training starts at the base.
On a base held in 4 bits this is QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator

from nbtune.errors import SpecError, did_you_mean
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "Lora", "LoraSpec"]


def _modules(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) and value != "all-linear" else value


def _numbers(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class LoraSpec(FinetuneSpec):
    """peft's options by peft's names and defaults; all linear layers are the default targets."""

    r: int = option(8, "rank of the update", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("lora_r", "rank", "lora_rank"))
    lora_alpha: float = option(8, "the update is scaled by lora_alpha / r", gt=0, scale="log", slider=(1, 256), aliases=("alpha",))
    lora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5), aliases=("dropout",))
    target_modules: Annotated[Literal["all-linear"] | tuple[str, ...], BeforeValidator(_modules)] = option(
        "all-linear",
        "layers that get an update: all-linear, or names such as [q_proj, v_proj]",
        aliases=("lora_target", "lora_target_modules"),
    )
    layers_to_transform: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers)] = option(
        None, "numbers of the blocks that get one; left out: all"
    )
    use_rslora: bool = option(False, "scale by lora_alpha / sqrt(r) (https://arxiv.org/abs/2312.03732)")
    loraplus_lr_ratio: float | None = option(
        None, "the learning rate of B as a multiple of A's (LoRA+, https://arxiv.org/abs/2402.12354)", ge=1, le=100, slider=(1, 32)
    )
    bias: Literal["none", "all", "lora_only"] = option("none", "biases that are trained too")


class Lora:
    """See the module's text."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank updates beside the linear layers; small, quick, and the base stays as it is"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    spec: ClassVar[type[FinetuneSpec]] = LoraSpec
    writes_base: ClassVar[bool] = False

    def requires(self, facts: Facts, spec: LoraSpec) -> None:
        """Refuses biases trained beside the adapter on a base that others share.

        Raises:
            SpecError: a block number that the model does not have, or trained biases.
        """
        if spec.bias != "none":
            message = f"bias {spec.bias!r} would train biases of the base, which other cells share"
            raise SpecError(message, hint="leave bias out")
        beyond = [number for number in spec.layers_to_transform or () if facts.num_blocks and not 0 <= number < facts.num_blocks]
        if beyond:
            message = f"layers_to_transform has {beyond[0]}, and {facts.name!r} has blocks 0 to {facts.num_blocks - 1}"
            raise SpecError(message, hint="count blocks from 0")

    def attach(self, base: Base, spec: LoraSpec, name: str) -> None:
        """Adds the adapter.

        Raises:
            SpecError: `target_modules` names no layer of the model.
        """
        from peft import LoraConfig

        targets = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
        if not isinstance(targets, str):
            _refuse_unknown(base.model, targets)
        elif spec.layers_to_transform:
            targets = _linear_layers(base.model)  # peft takes numbers of blocks beside a list of names alone
        config = LoraConfig(
            r=spec.r,
            lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=spec.lora_dropout,
            target_modules=targets,
            layers_to_transform=list(spec.layers_to_transform) if spec.layers_to_transform else None,
            use_rslora=spec.use_rslora,
            bias=spec.bias,
            task_type="CAUSAL_LM",
        )
        base.add_adapter(name, config, seed=spec.seed)


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


def _refuse_unknown(model: nn.Module, targets: list[str]) -> None:
    from torch import nn

    layers = {key.rsplit(".", 1)[-1] for key, module in model.named_modules() if isinstance(module, nn.Linear)} - {"base_layer", "default"}
    known = {name for name in layers if not name.startswith("lora_")}
    paths = [key for key, _ in model.named_modules()]
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            raise SpecError(f"target_modules: the model has no module {target!r}", hint=did_you_mean(target, known))


METHOD: Final = Lora()
