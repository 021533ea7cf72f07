"""What the methods of the second tier have in common: their options are peft's, one to one, so that each is declarations alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from nbtune.errors import SpecError
from nbtune.methods.layers import LayersSpec, LayerTuner

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["SecondTier"]


class SecondTier(LayerTuner):
    """A tuner of peft's under its own name, with `configuration`, the name of its class of options.

    `takes_blocks` tells whether peft can put it on chosen blocks alone; `fixed` are options of peft's that are not left to the user.
    """

    tier: ClassVar[int] = 2
    configuration: ClassVar[str]
    takes_blocks: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses what `LayerTuner` does, and chosen blocks where peft cannot choose.

        Raises:
            ModelError, SpecError: either.
        """
        super().requires(facts, spec)
        if spec.layers_to_transform and not self.takes_blocks:
            message = f"{self.name} takes no layers_to_transform: peft puts it on all blocks"
            raise SpecError(message, hint='name the layers in full: target_modules: ["layers.0.self_attn.q_proj"]')

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the adapter.

        Raises:
            SpecError: a size that does not go into the model's, or a layer that peft does not know, in peft's words; or as in `LayerTuner`.
            ModelError: as in `LayerTuner`.
        """
        try:
            super().attach(base, spec, name)
        except (TypeError, ValueError) as error:
            message = f"{self.name} cannot be put on {base.name!r} with these options: {error}"
            raise SpecError(message, hint="change the option, or name other target_modules") from error

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """The configuration for peft, out of the spec's own options by their names."""
        import peft

        from nbtune.models.quiet import quiet

        own = {name: getattr(spec, name) for name in type(spec).model_fields if name not in LayersSpec.model_fields}
        blocks = layers if self.takes_blocks else {"target_modules": layers["target_modules"]}
        with quiet():  # peft warns of what `fixed` leaves out of the file
            made: PeftConfig = getattr(peft, self.configuration)(**own, **self.fixed, task_type="CAUSAL_LM", **blocks)
        return made
