"""Prompt tuning: vectors in front of each prompt are trained, the model is not (Lester et al. 2021, https://arxiv.org/abs/2104.08691).

Beginning at the labels (section 3.2 there), each of the first vectors is the mean of one label's token embeddings, and the others are
random words as far as there are more vectors than labels.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.errors import SpecError
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbtune.data.encoded import Encoded
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base
    from nbtune.task import Task

__all__ = ["METHOD", "PromptTuning", "PromptTuningSpec", "add_vectors", "initial_ids", "refuse_too_many"]


class PromptTuningSpec(FinetuneSpec):
    """How many vectors, and where they start."""

    num_virtual_tokens: int = option(20, "vectors in front of each prompt", ge=1, le=4096, scale="log", slider=(1, 128))
    prompt_tuning_init: Literal["sample_vocab", "text", "labels", "random"] = option(
        "sample_vocab", "where they start: at the embeddings of random words, of a text, of the task's labels, or at random"
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

    def requires_of(self, task: Task, spec: Any) -> None:
        """Refuses to begin at labels where there are none, or more than vectors.

        Raises:
            SpecError: either.
        """
        if spec.prompt_tuning_init != "labels":
            return
        if not task.labels:
            message = f"prompt_tuning_init is labels, and task {task.name!r} is {task.kind}, which has none"
            raise SpecError(message, hint="use sample_vocab, or text with prompt_tuning_init_text")
        if len(task.labels) > spec.num_virtual_tokens:
            message = f"prompt_tuning_init is labels: {len(task.labels)} labels do not go into {spec.num_virtual_tokens} vectors"
            raise SpecError(message, hint=f"use num_virtual_tokens {len(task.labels)} or more")

    def virtual_tokens(self, spec: Any) -> int:
        """Tokens that stand in front of each prompt."""
        return int(spec.num_virtual_tokens)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the vectors to the embedding layer."""
        add_vectors(base, spec, name, initial_ids(base, spec))

    def begin(self, base: Base, spec: Any, name: str, task: Task, _rows: Sequence[Encoded]) -> None:
        """Has the first vectors begin as the labels of the task, where that is wanted."""
        import torch

        from nbtune.models.families import embeddings

        if spec.prompt_tuning_init != "labels":
            return
        layer = embeddings(base.model)
        with torch.no_grad():
            for place, text in enumerate(task.completion_of.values()):
                words = torch.tensor(_tokens(base, text), device=base.device)
                layer.virtual_tokens[name][place].copy_(layer.base_layer(words).float().mean(0))


def add_vectors(base: Base, spec: Any, name: str, begin: list[int] | None, **more: Any) -> None:
    """Puts `spec.num_virtual_tokens` vectors on the embedding layer, which begin as those of the ids `begin` (None: at random)."""
    from nbtune.methods.virtual import VirtualConfig
    from nbtune.models.families import embeddings, vocabulary

    layer = embeddings(base.model)
    path = next(key for key, module in base.model.named_modules() if module is layer)
    config = VirtualConfig(
        target_modules=[path],
        num_virtual_tokens=spec.num_virtual_tokens,
        vocabulary=vocabulary(base.config),
        initial_ids=begin,
        task_type="CAUSAL_LM",
        **more,
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


def initial_ids(base: Base, spec: Any) -> list[int] | None:
    """Ids whose embeddings the vectors start at; on a model without weights it is no matter which."""
    from nbtune.models.families import vocabulary

    if spec.prompt_tuning_init == "random" or base.tokenizer is None:
        return None
    if spec.prompt_tuning_init == "text":
        return _tokens(base, spec.prompt_tuning_init_text)
    chance, words = random.Random(spec.seed), min(vocabulary(base.config), len(base.tokenizer))
    return [chance.randrange(words) for _ in range(spec.num_virtual_tokens)]


def _tokens(base: Base, text: str) -> list[int]:
    return [int(token) for token in base.tokenizer(text, add_special_tokens=False)["input_ids"]]


METHOD: Final = PromptTuning()
