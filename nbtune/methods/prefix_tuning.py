"""Prefix tuning: keys and values in front of each text are trained, in every block (Li and Liang 2021, https://arxiv.org/abs/2101.00190).

With `prefix_projection` a network makes them while they are trained (section 4.3 there); once that is over they alone are kept.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.prompt_tuning import refuse_too_many
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "PrefixTuning", "PrefixTuningSpec"]


class PrefixTuningSpec(FinetuneSpec):
    """How long the prefix is, and whether a network makes it."""

    num_virtual_tokens: int = option(20, "places of the prefix", ge=1, le=4096, scale="log", slider=(1, 128))
    prefix_projection: bool = option(False, "a network of two layers makes keys and values, which steadies high learning rates")
    encoder_hidden_size: int = option(
        128,
        "width of that network (with prefix_projection)",
        ge=1,
        le=16384,
        scale="log",
        slider=(16, 1024),
        aliases=("prefix_hidden_size",),
    )
    learning_rate: float = option(3e-2, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1), aliases=("lr",), group="training")


class PrefixTuning:
    """See the module's text."""

    name: ClassVar[str] = "prefix-tuning"
    summary: ClassVar[str] = "trained keys and values in every block; a soft prompt that reaches all of them"
    paper: ClassVar[str] = "https://arxiv.org/abs/2101.00190"
    spec: ClassVar[type[FinetuneSpec]] = PrefixTuningSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = "prefix_values"
    merges: ClassVar[bool] = False

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a prefix as long as what the model reads.

        Raises:
            SpecError: it is.
        """
        refuse_too_many(facts, spec)

    def virtual_tokens(self, spec: Any) -> int:
        """Places in front of each prompt."""
        return int(spec.num_virtual_tokens)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds keys and values, which begin as those of random words, or the network.

        Raises:
            ModelError: it is not known where the model makes its keys and values.
        """
        from nbtune.methods.prefix import PrefixConfig, PrefixEmbedding
        from nbtune.models.families import embeddings, keys_values, vocabulary

        found = keys_values(base.model)
        layer = embeddings(base.model)
        path = next(key for key, module in base.model.named_modules() if module is layer)
        config = PrefixConfig(
            target_modules=[path, *found.modules],
            projections=list(found.modules),
            num_virtual_tokens=spec.num_virtual_tokens,
            vocabulary=vocabulary(base.config),
            columns=None if found.columns is None else [list(pair) for pair in found.columns],
            encoder_hidden_size=spec.encoder_hidden_size if spec.prefix_projection else None,
            sizes=list(found.sizes),
            task_type="CAUSAL_LM",
        )
        base.add_adapter(name, config, seed=spec.seed)
        if base.device.type != "meta":
            words = (layer.base_layer if isinstance(layer, PrefixEmbedding) else layer).num_embeddings
            chance = random.Random(spec.seed)
            _begin(base, name, [chance.randrange(words) for _ in range(spec.num_virtual_tokens)])

    def fold(self, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The keys and values themselves, without the network that `prefix_projection` has make them."""
        from nbtune.methods.prefix import folded

        if config["encoder_hidden_size"] is None:
            return dict(tensors), {}
        return folded(tensors, config["projections"], config["sizes"]), {"encoder_hidden_size": None}


def _begin(base: Base, name: str, ids: list[int]) -> None:
    """Lets the prefix begin as the keys and values of these tokens, one after the other; a network's stays as it was drawn."""
    import torch

    from nbtune.methods.prefix import PrefixLayer
    from nbtune.models.families import one_text

    layers = [module for module in base.model.modules() if isinstance(module, PrefixLayer) and name in module.prefix_values_own]
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        layer.base_layer.register_forward_hook(lambda _module, _args, out, place=layer.place: seen.__setitem__(place, out[0].float()))
        for layer in layers
    ]
    try:
        with base.lease(None), torch.no_grad():
            base.model(**one_text(base.model, torch.tensor([ids], device=base.device)))
            for layer in layers:
                pairs = layer.prefix_config[name].columns
                out = seen[layer.place]
                kept = out if pairs is None else torch.cat([out[:, begin:end] for begin, end in pairs], -1)
                layer.prefix_values_own[name].copy_(kept)
    finally:
        for hook in hooks:
            hook.remove()


METHOD: Final = PrefixTuning()
