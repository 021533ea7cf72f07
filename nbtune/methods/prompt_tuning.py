"""Prompt tuning: vectors in front of each prompt are trained, the model is not (Lester et al. 2021, https://arxiv.org/abs/2104.08691)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.errors import SpecError
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "PromptTuning", "PromptTuningSpec", "refuse_too_many"]


class PromptTuningSpec(FinetuneSpec):
    """How many vectors, and where they start."""

    num_virtual_tokens: int = option(20, "vectors in front of each prompt", ge=1, le=4096, scale="log", slider=(1, 128))
    prompt_tuning_init: Literal["sample_vocab", "text", "random"] = option(
        "sample_vocab", "where they start: at the embeddings of random words, of a text, or at random"
    )
    prompt_tuning_init_text: str | None = option(None, "the text to start at; it is repeated, or cut, to their number")
    learning_rate: float = option(3e-2, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1), aliases=("lr",), group="training")


class PromptTuning:
    """See the module's text."""

    name: ClassVar[str] = "prompt-tuning"
    summary: ClassVar[str] = "trained vectors in front of each prompt; the fewest parameters, and slow to learn"
    paper: ClassVar[str] = "https://arxiv.org/abs/2104.08691"
    spec: ClassVar[type[FinetuneSpec]] = PromptTuningSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = "virtual"
    merges: ClassVar[bool] = False

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a text to start at that is missing or not used, and a prompt as long as what the model reads.

        Raises:
            SpecError: either.
        """
        if (spec.prompt_tuning_init == "text") != (spec.prompt_tuning_init_text is not None):
            message = "prompt_tuning_init text and prompt_tuning_init_text belong together, and one of them is missing"
            raise SpecError(message, hint='set both: prompt_tuning_init: text, prompt_tuning_init_text: "Answer with one word:"')
        refuse_too_many(facts, spec)

    def virtual_tokens(self, spec: Any) -> int:
        """Tokens that stand in front of each prompt."""
        return int(spec.num_virtual_tokens)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the vectors to the embedding layer."""
        self._attach(base, spec, name)

    def _attach(self, base: Base, spec: Any, name: str, encoder_hidden_size: int | None = None) -> None:
        from nbtune.methods.virtual import VirtualConfig, VirtualEmbedding
        from nbtune.models.families import vocabulary

        layer: Any = base.model.get_input_embeddings()
        plain = layer.base_layer if isinstance(layer, VirtualEmbedding) else layer
        path = next(key for key, module in base.model.named_modules() if module is layer)
        config = VirtualConfig(
            target_modules=[path],
            num_virtual_tokens=spec.num_virtual_tokens,
            vocabulary=vocabulary(base.config),
            initial_ids=_initial_ids(base, spec, plain.num_embeddings),
            encoder_hidden_size=encoder_hidden_size,
            task_type="CAUSAL_LM",
        )
        base.add_adapter(name, config, seed=spec.seed)


def refuse_too_many(facts: Facts, spec: Any) -> None:
    """Refuses tokens in front of a text that leave it no room.

    Raises:
        SpecError: they do.
    """
    from nbtune.models.families import context_of

    context = context_of(facts.config)
    most = spec.max_length if context is None else min(spec.max_length, context)
    if spec.num_virtual_tokens > most - 8:
        message = f"num_virtual_tokens is {spec.num_virtual_tokens}, which leaves no room in the {most} tokens of a row"
        raise SpecError(message, hint="use fewer, or a larger max_length where the model reads as much")


def _initial_ids(base: Base, spec: Any, words: int) -> list[int] | None:
    """Ids whose embeddings the vectors start at; on a model without weights it is no matter which."""
    if spec.prompt_tuning_init == "random" or base.tokenizer is None:
        return None
    if spec.prompt_tuning_init == "text":
        return [int(token) for token in base.tokenizer(spec.prompt_tuning_init_text, add_special_tokens=False)["input_ids"]]
    chance = random.Random(spec.seed)
    return [chance.randrange(min(words, len(base.tokenizer))) for _ in range(spec.num_virtual_tokens)]


METHOD: Final = PromptTuning()
