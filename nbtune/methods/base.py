"""What a method is: how parameters are adapted. One file and one line in the registry each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nbtune.models.base import Base
    from nbtune.spec import FinetuneSpec

__all__ = ["Facts", "Method", "attach", "first_ids", "is_estimator"]


@dataclass(frozen=True)
class Facts:
    """What is known of a model before its weights are read."""

    name: str
    config: PretrainedConfig
    quantization: str | None

    @property
    def num_blocks(self) -> int:
        """Transformer blocks, by the config's usual names (0: the config does not say)."""
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        return int(getattr(text, "num_hidden_layers", 0) or 0)


class Method(Protocol):
    """A way to adapt a base.

    `spec` is its options (the common ones of `FinetuneSpec` and its own). With `writes_base` it trains the base's own weights, so
    it is given a copy; else it adds an adapter named by the run to a shared base, of `kind` by peft's name.
    What `merges` can be made part of the base's own weights.
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


def is_estimator(method: Method) -> bool:
    """Whether it trains nothing of the model by gradients, but fits something to what the frozen model gives (`estimates`)."""
    return bool(getattr(method, "estimates", False))


def attach(method: Method, base: Base, spec: Any, name: str) -> None:
    """Puts the method on the base under `name`, and has a new head, where the base has one, trained with it.

    Raises:
        SpecError, ModelError: what the method refuses.
    """
    method.attach(base, spec, name)
    if base.labels and not is_estimator(method):
        base.begin_head(name, spec.seed)


def first_ids(method: Method, spec: Any, config: PretrainedConfig) -> tuple[int, ...]:
    """Ids in front of each prompt: beyond the vocabulary, those of the virtual tokens of a soft prompt; none for other methods.

    A method that has some says how many by `virtual_tokens(spec)`.
    """
    from nbtune.models.families import vocabulary

    count = method.virtual_tokens(spec) if hasattr(method, "virtual_tokens") else 0
    first = vocabulary(config) if count else 0
    return tuple(range(first, first + count))
