"""Bottleneck adapters: small networks between the layers of each block, which stay as they are.

After attention and feed-forward (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751), after the feed-forward alone
(Pfeiffer et al. 2020, https://arxiv.org/abs/2005.00247), or beside it (He et al. 2021, https://arxiv.org/abs/2110.04366).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.errors import ModelError
from nbtune.methods.layers import LayerTuner
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Adapter", "AdapterSpec"]


class AdapterSpec(FinetuneSpec):
    """Where the networks stand, and how wide they are inside."""

    placement: Literal["houlsby", "pfeiffer", "parallel"] = option(
        "houlsby", "houlsby: after attention and feed-forward; pfeiffer: after the feed-forward; parallel: beside it"
    )
    bottleneck_size: int | None = option(
        None, "features inside; left out: the hidden size over reduction_factor", ge=1, le=16384, scale="log", slider=(4, 512)
    )
    reduction_factor: float = option(16.0, "the hidden size over the features inside", ge=1, le=4096, scale="log", slider=(2, 64))
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = option("relu", "between the two layers")
    scaling: float = option(1.0, "what a network adds is multiplied by this", gt=0, slider=(0.1, 8))


class Adapter(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "adapter"
    summary: ClassVar[str] = "small networks after the layers of each block, in every family; the first of the adapters"
    paper: ClassVar[str] = "https://arxiv.org/abs/1902.00751"
    kind: ClassVar[str] = "bottleneck"
    merges: ClassVar[bool] = False
    spec: ClassVar[type[FinetuneSpec]] = AdapterSpec

    def requires(self, facts: Any, spec: Any) -> None:
        """Which modules there are is seen when it is attached, which is before anything is loaded, too."""

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the networks.

        Raises:
            ModelError: the model's parts are not known, or its feed-forward is no module of its own to stand beside.
        """
        from nbtune.models.families import sublayers

        parts = sublayers(base.model)
        if spec.placement == "parallel":
            if parts.feed_forward is None:
                message = f"the feed-forward of {base.name!r} is no module of its own that an adapter could stand beside"
                raise ModelError(message, hint="use placement pfeiffer or houlsby")
            targets = parts.feed_forward
        else:
            targets = (*parts.feed_forward_out, *(parts.attention_out if spec.placement == "houlsby" else ()))
        base.add_adapter(name, self.config(base, spec, {"target_modules": list(targets)}), seed=spec.seed)

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`BottleneckConfig`."""
        from nbtune.methods.bottleneck import BottleneckConfig

        text: Any = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
        return BottleneckConfig(
            hidden_size=int(text.hidden_size),
            bottleneck_size=spec.bottleneck_size or max(1, round(text.hidden_size / spec.reduction_factor)),
            non_linearity=spec.non_linearity,
            scaling=spec.scaling,
            parallel=spec.placement == "parallel",
            **layers,
        )


METHOD: Final = Adapter()
