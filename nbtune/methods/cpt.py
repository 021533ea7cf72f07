"""Context-aware prompt tuning: the prompt is a few training rows with their answers, whose embeddings are moved a little.

Blau et al. 2024, https://arxiv.org/abs/2410.17222. Of a token's embedding e in the prompt, e + d is read, with |d| at most
opt_projection_epsilon sqrt(hidden / 2048), as peft has it; the answers' tokens stay as they are. The loss is that of the row's own answer:
those in the prompt are not learnt again.
"""

from __future__ import annotations

import random
from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.errors import SpecError
from nbtune.methods.prompt_tuning import add_vectors, refuse_too_many
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbtune.data.encoded import Encoded
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base
    from nbtune.task import Task

__all__ = ["METHOD", "Cpt", "CptSpec"]

_BETWEEN: Final = "\n\n"
_WIDTH: Final = 2048
"""The hidden size for which the distance is said."""


class CptSpec(FinetuneSpec):
    """How much context, and how far its tokens may move.

    peft's default of 0.1 is a sixtieth of the length of SmolLM2's embeddings, within which nothing was learnt (dev accuracy 0.19 on the
    quickstart's tickets; 0.43 with 1, 0.50 with 10).
    """

    num_virtual_tokens: int = option(
        128, "tokens of the context: as many rows as go in, of the first its end", ge=1, le=4096, scale="log", slider=(16, 512)
    )
    opt_projection_epsilon: float = option(
        10.0, "how far an embedding may move, at a hidden size of 2048", gt=0, le=1e3, scale="log", slider=(0.01, 100)
    )
    learning_rate: float = peak(1e-2)


class Cpt:
    """See the module's text."""

    name: ClassVar[str] = "cpt"
    summary: ClassVar[str] = "few-shot examples as a prompt whose embeddings are trained, within a distance of where they were"
    paper: ClassVar[str] = "https://arxiv.org/abs/2410.17222"
    spec: ClassVar[type[FinetuneSpec]] = CptSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = "virtual"
    merges: ClassVar[bool] = False

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses what writes no answers, and a context as long as what the model reads.

        Raises:
            SpecError: either.
        """
        from nbtune.models.families import is_encoder, is_seq2seq

        if is_seq2seq(facts.config):
            message = f"cpt learns from the answers in front of a text, and the encoder of {facts.name!r} reads prompts alone"
            raise SpecError(message, hint="use prompt-tuning or prefix-tuning")
        answers = spec.objective in ("sft", "instruction")
        if not answers or is_encoder(facts.config):
            silent = repr(facts.name) if answers else f"objective {spec.objective}"
            message = f"cpt puts rows with their answers in front of a text, and {silent} writes none"
            raise SpecError(message, hint="use prompt-tuning or prefix-tuning, or objective sft")
        refuse_too_many(facts, spec)

    def virtual_tokens(self, spec: Any) -> int:
        """Tokens that stand in front of each prompt."""
        return int(spec.num_virtual_tokens)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the context, of which nothing is known yet but how long it is."""
        add_vectors(base, spec, name, None, projection_epsilon=_distance(base, spec))

    def begin(self, base: Base, spec: Any, name: str, task: Task, rows: Sequence[Encoded]) -> None:
        """Makes training rows the context."""
        between = [] if task.uses_chat else base.tokenizer(_BETWEEN, add_special_tokens=False)["input_ids"]
        ids, moves = context_of(rows, spec, base.tokenizer.bos_token_id, between)
        layer: Any = base.model.get_input_embeddings()
        layer.near(name, ids, [_distance(base, spec) * moved for moved in moves])


def context_of(rows: Sequence[Encoded], spec: Any, bos: int | None, between: Sequence[int]) -> tuple[list[int], list[bool]]:
    """The last `num_virtual_tokens` ids of random rows, one after the other, and which of them move: those of no answer.

    Each row keeps its end of sequence, which is what is learnt to follow an answer, and has the ids `between` behind it.
    """
    ids, moves = list[int](), list[bool]()
    for number in cycle(random.Random(spec.seed).sample(range(len(rows)), len(rows))):
        row = rows[number].without(spec.num_virtual_tokens)
        begin = int(row.ids[:1] == (bos,))
        ids = [*row.ids[begin:], *between, *ids]
        moves = [*(not row.trains(place) for place in range(begin, len(row.ids))), *(True for _ in between), *moves]
        if len(ids) >= spec.num_virtual_tokens:
            break
    return ids[-spec.num_virtual_tokens :], moves[-spec.num_virtual_tokens :]


def _distance(base: Base, spec: Any) -> float:
    layer: Any = base.model.get_input_embeddings()
    size = getattr(layer, "base_layer", layer).embedding_dim
    return float(spec.opt_projection_epsilon * (size / _WIDTH) ** 0.5)


METHOD: Final = Cpt()
