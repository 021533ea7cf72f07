"""Last blocks: the topmost transformer blocks and the final norm are trained (Yosinski et al. 2014, https://arxiv.org/abs/1411.1792)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import ModelError, SpecError
from nbtune.methods.full import LayerwiseSpec
from nbtune.spec import option, peak

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "LastBlocks", "LastBlocksSpec"]


class LastBlocksSpec(LayerwiseSpec):
    """How many blocks."""

    num_blocks: int = option(4, "blocks from the top that are trained", ge=1, slider=(1, 32), aliases=("num_layers", "blocks"))
    learning_rate: float = peak(5e-4)


class LastBlocks:
    """See the module's text."""

    name: ClassVar[str] = "last-blocks"
    summary: ClassVar[str] = "the last few blocks; backward never runs below them"
    paper: ClassVar[str] = "https://arxiv.org/abs/1411.1792"
    spec: ClassVar[type[LayerwiseSpec]] = LastBlocksSpec
    writes_base: ClassVar[bool] = True
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: LastBlocksSpec) -> None:
        """Refuses a quantized base, more blocks than there are, and gradual unfreezing of one.

        Raises:
            ModelError: the base is quantized.
            SpecError: `num_blocks` is more than the model has, or one, of which none could begin later.
        """
        if facts.quantization is not None:
            message = f"{self.name} trains the base's weights, which {facts.quantization} holds in a form that cannot be trained"
            raise ModelError(message, hint="leave quantization out, or use lora")
        if facts.num_blocks and spec.num_blocks > facts.num_blocks:
            message = f"num_blocks is {spec.num_blocks}, and {facts.name!r} has {facts.num_blocks} blocks"
            raise SpecError(message, hint=f"use at most {facts.num_blocks}")
        if spec.gradual_unfreezing and spec.num_blocks == 1:
            message = "gradual_unfreezing has one block after the other begin to learn, and num_blocks is 1"
            raise SpecError(message, hint="use more blocks, or leave gradual_unfreezing out")

    def attach(self, base: Base, spec: LastBlocksSpec, name: str) -> None:
        """Sets the last blocks free, and the norm between them and the head where there is one."""
        from nbtune.models.families import blocks, final_norms

        base.train_only([*blocks(base.model)[-spec.num_blocks :], *final_norms(base.model)])


METHOD: Final = LastBlocks()
