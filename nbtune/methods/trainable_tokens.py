"""Trainable tokens: of the embeddings those of chosen tokens are trained, nothing else.

For words that a task gives a meaning of its own (marks, commands, names). Where the head shares the embeddings' matrix, it shares what is
learnt. It is the least part of training the embeddings, whose use by themselves Artetxe et al. showed (2019,
https://arxiv.org/abs/1910.11856); https://huggingface.co/docs/peft/package_reference/trainable_tokens is peft's tuner for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.errors import Problem, SpecError
from nbtune.spec import FinetuneSpec, Words, option, peak

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "TrainableTokens", "TrainableTokensSpec"]


class TrainableTokensSpec(FinetuneSpec):
    """Which tokens."""

    tokens: Words = option(
        (), 'texts of one token each whose embeddings are trained, such as [" yes", " no"]; most words begin with a space'
    )
    learning_rate: float = peak(1e-2)


class TrainableTokens:
    """See the module's text."""

    name: ClassVar[str] = "trainable-tokens"
    summary: ClassVar[str] = "the embeddings of a few tokens that are named, nothing else"
    paper: ClassVar[str] = "https://arxiv.org/abs/1910.11856"
    spec: ClassVar[type[FinetuneSpec]] = TrainableTokensSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = "trainable_tokens"
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses texts that are not one token of the model's, and none at all.

        Raises:
            SpecError: with what each is split into.
        """
        if not spec.tokens:
            raise SpecError("tokens is missing: which tokens' embeddings are trained", hint='name some: tokens: [" yes", " no"]')
        _ids(facts.tokenizer, spec.tokens)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Puts the chosen tokens' vectors on the embedding layer."""
        from peft import TrainableTokensConfig

        layer = base.model.get_input_embeddings()
        path = next(key for key, module in base.model.named_modules() if module is layer)
        tokenizer: Any = base.tokenizer  # none on a model without weights, where it is no matter which tokens
        ids = list(range(len(spec.tokens))) if tokenizer is None else _ids(tokenizer, spec.tokens)
        base.add_adapter(name, TrainableTokensConfig(token_indices=ids, target_modules=[path], task_type="CAUSAL_LM"), seed=spec.seed)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]) -> list[int]:
    """The texts' tokens.

    Raises:
        SpecError: a text is more than one, or none, or stands there twice.
    """
    problems, found = [], []
    for text in texts:
        ids = [int(number) for number in tokenizer(text, add_special_tokens=False)["input_ids"]]
        if len(ids) != 1:
            parts = ", ".join(repr(tokenizer.decode([number])) for number in ids) or "nothing"
            problems.append(Problem(f"tokens: {text!r} is not one token of this model but {parts}", "name one of these, or another word"))
        elif ids[0] in found:
            problems.append(Problem(f"tokens: {text!r} is there twice", "name it once"))
        found += ids[:1]
    if problems:
        raise SpecError.of(problems)
    return found


METHOD: Final = TrainableTokens()
