"""LoRA: a low-rank update beside each linear layer (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

The layer W x becomes W x + (alpha / r) B A x, with A [r, in] and B [out, r]; B starts at zero, so training starts at the base.
On a base held in 4 bits this is QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). `init` has it start elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.errors import ModelError, SpecError
from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftConfig

    from nbtune.data.encoded import Encoded
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base
    from nbtune.task import Task

__all__ = ["METHOD", "Init", "Lora", "LoraSpec"]

Init = Literal["default", "gaussian", "pissa", "pissa_niter_16", "olora", "loftq", "eva"]
_OF_WEIGHTS: Final = frozenset({"pissa", "pissa_niter_16", "olora"})
"""Those that begin at parts of the weights."""


class LoraSpec(LayersSpec):
    """peft's options by peft's names and defaults; all linear layers are the default targets."""

    r: int = option(8, "rank of the update", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("lora_r", "rank", "lora_rank"))
    lora_alpha: float = option(8, "the update is scaled by lora_alpha / r", gt=0, scale="log", slider=(1, 256), aliases=("alpha",))
    lora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5), aliases=("dropout",))
    use_rslora: bool = option(False, "scale by lora_alpha / sqrt(r) (https://arxiv.org/abs/2312.03732)")
    use_dora: bool = option(False, "train each column's length apart from its direction (DoRA, https://arxiv.org/abs/2402.09353)")
    loraplus_lr_ratio: float | None = option(
        None, "the learning rate of B as a multiple of A's (LoRA+, https://arxiv.org/abs/2402.12354)", ge=1, le=100, slider=(1, 32)
    )
    init: Init = option(
        "default",
        "where A and B begin: B at zero and A as peft draws it or gaussian; at the weight's principal parts (pissa, or quicker "
        "pissa_niter_16), at its QR factors (olora); at what 4 bits lose (loftq); A at what the layer reads of training rows (eva)",
        aliases=("init_lora_weights",),
    )
    bias: Literal["none", "all", "lora_only"] = option("none", "biases that are trained too")


class Lora(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank updates beside the linear layers; small, quick, and the base stays as it is"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    kind: ClassVar[str] = "lora"
    rank: ClassVar[str] = "r"
    spec: ClassVar[type[FinetuneSpec]] = LoraSpec

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses biases trained beside the adapter on a base that others share, DoRA on int8, and a start that the base cannot give.

        Raises:
            SpecError: trained biases, such a start with DoRA, LoftQ without 4 bits, or as in `LayerTuner`.
            ModelError: as in `LayerTuner`, or a start at the weights of a quantized base.
        """
        if spec.bias != "none":
            message = f"bias {spec.bias!r} would train biases of the base, which other cells share"
            raise SpecError(message, hint="leave bias out")
        if spec.use_dora and facts.quantization == "int8":
            message = "DoRA needs the lengths of the columns, which peft cannot read from a base held as int8"
            raise ModelError(message, hint="use quantization nf4, or lora without use_dora")
        _refuse_start(facts, spec)
        super().requires(facts, spec)

    def merges_with(self, spec: Any) -> bool:
        """Not from a start at what quantization loses, which an unquantized base has not lost."""
        return bool(spec.init != "loftq")

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the adapter, and has it begin as `init` says.

        Raises:
            SpecError, ModelError: as in `LayerTuner`.
        """
        from nbtune.methods.initial import begin, begin_at_error

        super().attach(base, spec, name)
        if spec.init in _OF_WEIGHTS:
            begin(base, name, spec.init, spec.seed)
        elif spec.init == "loftq":
            begin_at_error(base, name)

    def begin(self, base: Base, spec: Any, name: str, _task: Task, rows: Sequence[Encoded]) -> None:
        """Has A begin at what the layers read of the training rows, where that is wanted.

        Raises:
            SpecError: there are fewer tokens than ranks.
        """
        from nbtune.methods.initial import begin_at_inputs

        if spec.init == "eva":
            begin_at_inputs(base, name, rows)

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`LoraConfig`."""
        from peft import LoraConfig

        return LoraConfig(
            r=spec.r,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            use_rslora=spec.use_rslora,
            use_dora=spec.use_dora,
            bias=spec.bias,
            init_lora_weights="gaussian" if spec.init == "gaussian" else True,
            task_type="CAUSAL_LM",
            **layers,
        )


def _refuse_start(facts: Facts, spec: Any) -> None:
    if spec.use_dora and spec.init not in ("default", "gaussian", "eva"):
        message = f"init {spec.init} begins at a product that is not zero, and DoRA takes the lengths of the columns before that"
        raise SpecError(message, hint="leave init out, or use lora without use_dora")
    if spec.init == "loftq" and facts.quantization not in ("nf4", "fp4"):
        held = f"is held as {facts.quantization}" if facts.quantization else "is not quantized"
        message = f"init loftq begins at what 4 bits lose of the base, which {held}"
        raise SpecError(message, hint="use quantization nf4, or leave init out")
    if spec.init in _OF_WEIGHTS and facts.quantization is not None:
        message = f"init {spec.init} begins at the weights themselves, and the base is held as {facts.quantization}"
        raise ModelError(message, hint="leave quantization out, or use init loftq on nf4")


METHOD: Final = Lora()
