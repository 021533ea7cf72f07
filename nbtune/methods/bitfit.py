"""BitFit: the biases are trained, nothing else (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import ModelError
from nbtune.spec import FinetuneSpec, peak

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "BitFit", "BitFitSpec"]


class BitFitSpec(FinetuneSpec):
    """No options of its own."""

    learning_rate: float = peak(1e-3)


class BitFit:
    """See the module's text."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the biases only, for models that have them"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.10199"
    spec: ClassVar[type[FinetuneSpec]] = BitFitSpec
    writes_base: ClassVar[bool] = True
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: FinetuneSpec) -> None:
        """Refuses a quantized base; which models have biases is seen when it is attached, which is before anything is loaded, too.

        Raises:
            ModelError: the base is quantized: bitsandbytes casts the biases of its layers to 16 bits, where small updates are lost.
        """
        if facts.quantization is not None:
            message = f"{self.name} trains biases, which a base held as {facts.quantization} keeps in 16 bits, where small updates are lost"
            raise ModelError(message, hint="leave quantization out, or use layernorm or lora")

    def attach(self, base: Base, spec: FinetuneSpec, name: str) -> None:
        """Sets every bias free.

        Raises:
            ModelError: the model has none, as Llama and its kin.
        """
        biases = [parameter for key, parameter in base.model.named_parameters() if key.rsplit(".", 1)[-1] == "bias"]
        if not biases:
            message = f"{base.name!r} has no biases for bitfit to train"
            raise ModelError(message, hint="use layernorm, which trains as little, or lora")
        base.train_only_parameters(biases)
        for module in base.model.modules():
            if "norm" in type(module).__name__.lower():
                module.float()  # a norm multiplies and adds in one, which takes one dtype


METHOD: Final = BitFit()
