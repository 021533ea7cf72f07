"""Multitask prompt tuning: one prompt for several tasks, which each task multiplies by a matrix of rank one of its own.

Wang et al. 2023, https://arxiv.org/abs/2303.02861: the prompt of task k is P * (u_k v_k^T), elementwise, with P [virtual tokens, hidden]
shared by all; u_k and v_k begin at one. A task that was not trained is asked with the mean of those that were. P is learnt together with
them from the start, and not distilled from prompts of single tasks first, as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from nbtune.errors import SpecError
from nbtune.methods.prompt_tuning import PromptTuning, PromptTuningSpec, add_vectors, initial_ids
from nbtune.options import Words
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base
    from nbtune.task import Task

__all__ = ["METHOD", "MultitaskPromptTuning", "MultitaskPromptTuningSpec"]


class MultitaskPromptTuningSpec(PromptTuningSpec):
    """Prompt tuning's at a higher rate, and which sets have a prompt."""

    prompt_tuning_init: Literal["sample_vocab", "text", "random"] = option(
        "sample_vocab", "where the shared vectors start: at the embeddings of random words, of a text, or at random"
    )
    sets: Words | None = option(None, "sets of the instructions that have a prompt of their own; left out: all that are trained")
    learning_rate: float = peak(9e-2)


class MultitaskPromptTuning(PromptTuning):
    """See the module's text."""

    name: ClassVar[str] = "multitask-prompt-tuning"
    summary: ClassVar[str] = "one soft prompt for several tasks, with a small part of each task's own; for mixed instructions"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.02861"
    spec: ClassVar[type[FinetuneSpec]] = MultitaskPromptTuningSpec

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses what learns no instructions, and what prompt tuning refuses.

        Raises:
            SpecError: either.
        """
        from nbtune.models.families import is_encoder, is_seq2seq

        if is_encoder(facts.config) or is_seq2seq(facts.config):
            message = f"{self.name} learns several tasks at once by objective instruction, which {facts.name!r} cannot"
            raise SpecError(message, hint="use a decoder such as smollm2-135m, or prompt-tuning")
        super().requires(facts, spec)

    def requires_of(self, task: Task, spec: Any) -> None:
        """Refuses a task that mixes none, and sets that it does not train.

        Raises:
            SpecError: either.
        """
        if not task.mixes:
            message = f"{self.name} learns several tasks at once, and {task.name!r} is one"
            raise SpecError(message, hint="mix some: %%instructions NAME, or nbtune.instructions({...}); or use prompt-tuning")
        trained = _trained(task)
        if stray := next((name for name in spec.sets or () if name not in trained), None):
            raise SpecError(f"sets names {stray!r}, which is not trained", hint=f"trained are: {', '.join(trained)}")

    def settled(self, task: Task, spec: Any) -> Any:
        """With all sets that are trained, where none is named."""
        return spec.model_copy(update={"sets": spec.sets or _trained(task)})

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the shared vectors, and what each set multiplies them by."""
        add_vectors(base, spec, name, initial_ids(base, spec), num_tasks=len(spec.sets or ()))


def _trained(task: Task) -> tuple[str, ...]:
    from nbtune.data.instructions import sets_in

    return tuple(sorted(sets_in(task.train)))


METHOD: Final = MultitaskPromptTuning()
