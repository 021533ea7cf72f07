"""(IA)3: keys, values and the feed-forward's inner states are scaled by learnt vectors (Liu et al. 2022, https://arxiv.org/abs/2205.05638)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator

from nbtune.errors import SpecError
from nbtune.methods.layers import LayerTuner, refuse_unknown
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "Ia3", "Ia3Spec"]


def _names(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


class Ia3Spec(FinetuneSpec):
    """Which layers: keys, values and the last of the feed-forward, by peft's table of families."""

    target_modules: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = option(
        None, "layers that are scaled; left out: keys, values and the feed-forward's last, where the family is known"
    )
    feedforward_modules: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = option(
        None, "those of them whose input is scaled, not their output; left out: by the family"
    )
    learning_rate: float = peak(2e-2)


_MORE: Final = {"distilbert": ["k_lin", "v_lin", "lin2"], "electra": ["key", "value", "output.dense"]}
"""Families that peft does not know: keys, values, and the end of the feed-forward."""


class Ia3(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "ia3"
    summary: ClassVar[str] = "learnt vectors that scale keys, values and the feed-forward; tiny, and quick to learn at a high rate"
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.05638"
    kind: ClassVar[str] = "ia3"
    spec: ClassVar[type[FinetuneSpec]] = Ia3Spec
    shares: ClassVar[tuple[str, ...]] = ("target_modules", "feedforward_modules")  # which side of a layer is scaled

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a family whose layers are not known and not named.

        Raises:
            SpecError: `target_modules` has to be given.
        """
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN

        if spec.target_modules is None and facts.config.model_type not in KNOWN and facts.config.model_type not in _MORE:
            message = f"ia3 does not know which layers of a {facts.config.model_type} hold keys, values and the feed-forward"
            raise SpecError(message, hint="name them: target_modules [k_proj, v_proj, down_proj] with feedforward_modules [down_proj]")
        if spec.feedforward_modules and not set(spec.feedforward_modules) <= set(spec.target_modules or ()):
            message = (
                f"feedforward_modules {list(spec.feedforward_modules)} are not all among target_modules {list(spec.target_modules or ())}"
            )
            raise SpecError(message, hint="name them in both")

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the vectors, all of them one.

        Raises:
            SpecError: `target_modules` names no layer of the model.
        """
        targets = _MORE.get(base.config.model_type) if spec.target_modules is None else list(spec.target_modules)
        refuse_unknown(base.model, targets or [])
        base.add_adapter(name, self.config(base, spec, {"target_modules": targets}), seed=spec.seed)

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`IA3Config`."""
        from peft import IA3Config

        ends = None if spec.target_modules is None else list(spec.feedforward_modules or ())
        if spec.target_modules is None and base.config.model_type in _MORE:
            ends = layers["target_modules"][-1:]
        return IA3Config(feedforward_modules=ends, task_type="CAUSAL_LM", **layers)


METHOD: Final = Ia3()
