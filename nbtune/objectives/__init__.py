"""The objectives that there are: one file and one line here each; other packages register theirs as `nbtune.objectives`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from nbtune.errors import SpecError
from nbtune.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Reading, Tagging, Texts
    from nbtune.data.encoding import Encoder
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["Objective", "encoder_for", "get", "names", "objective_for", "source_for"]


class Objective(Protocol):
    """What is learnt from a row: which model that takes, how the row is read, and what the loss of a batch is.

    `model` is the catalogue's model where none is named.
    """

    name: str
    summary: str
    model: str

    def source(self, source: Source, task: Task) -> Source:
        """The model with the head that it takes.

        Raises:
            SpecError: the task has nothing to learn for this objective.
            ModelError: the model cannot be given such a head.
        """

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig) -> Reading | Tagging | Texts | None:
        """How a text is read for its class or its words for their tags, or how it is cut; None: an answer is written.

        Raises:
            SpecError: an option that does not suit the model.
        """

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """The loss summed over what is weighed (a 0-d tensor, float32), and the weight, so that a step normalises over all of it."""


_FILES: Final = {"sft": "sft", "classification": "classification", "tagging": "tagging", "clm": "clm"}
_OBJECTIVES: Final = Registry[Objective]("objective", "nbtune.objectives", _FILES, "OBJECTIVE")


def names() -> tuple[str, ...]:
    """Every objective's name, the built-in ones first."""
    return _OBJECTIVES.names


def get(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        SpecError: there is none of that name.
    """
    return _OBJECTIVES.get(name)


def objective_for(method: Any, options: Mapping[str, Any], task: Task | None) -> str:
    """The objective that is said, or the method's own; where that is sft and the task is none of answers, what suits its kind."""
    chosen = str(options.get("objective") or method.spec.model_fields["objective"].default)
    suits = {"text": "clm", "tagging": "tagging"}.get(task.kind if task is not None else "", chosen)
    return suits if chosen == "sft" and "objective" not in options else chosen


def source_for(objective: str, model: Any, task: Task | None) -> Source:
    """What `model` names (None or "": the objective's own), with the head that the objective takes.

    Raises:
        SpecError, ModelError: there is no such objective or model, or they and the task (None: there is none) do not go together.
    """
    from nbtune.models.loading import source_of

    chosen = get(objective)
    source = source_of(model or chosen.model)
    if task is None and chosen.name != "sft":
        message = f"objective {chosen.name} needs a task: its labels decide what the model's head is"
        raise SpecError(message, hint="give task=, or leave objective out")
    return source if task is None else chosen.source(source, task)


def encoder_for(
    task: Task, spec: FinetuneSpec, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, first: tuple[int, ...] = ()
) -> Encoder:
    """How the task's rows become tokens; `first` are ids that stand before every prompt.

    Raises:
        SpecError: an option that does not suit the model.
        DataError: chat is on, and the tokenizer has no chat template.
    """
    from nbtune.data.encoding import Encoder

    return Encoder(tokenizer, task.uses_chat, task.system, first, get(spec.objective).reading(task, spec, config))
