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
    from nbtune.data.encoded import Answering, Reading, Tagging, Texts
    from nbtune.data.encoding import Encoder
    from nbtune.data.masking import Masking
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["WEIGHED", "WRITES", "Objective", "encoder_for", "get", "names", "objective_for", "refuse_unsuited", "source_for", "suiting"]


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

    def reading(
        self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
    ) -> Reading | Tagging | Texts | Masking | Answering | None:
        """How a text is read for its class or its words for their tags, how it is cut, hidden or answered; None: an answer is written.

        Raises:
            SpecError: an option that does not suit the model.
        """

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """The loss summed over what is weighed (a 0-d tensor, float32), and the weight, so that a step normalises over all of it."""


_FILES: Final = {
    "sft": "sft",
    "instruction": "instruction",
    "classification": "classification",
    "pairs": "pairs",
    "regression": "regression",
    "tagging": "tagging",
    "clm": "clm",
    "mlm": "mlm",
    "mlm+nsp": "mlm_nsp",
}
WRITES: Final = frozenset({"sft", "instruction", "clm"})
"""Those whose model writes, with the head that it came with."""
WEIGHED: Final = frozenset({"classification", "pairs"})
"""Those whose rows may weigh by their class."""
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
    if chosen != "sft" or "objective" in options or task is None:
        return chosen
    if task.mixes:
        return "instruction"
    if task.kind == "text":
        return "mlm" if _reads_both_ways(options.get("model")) else "clm"
    return "tagging" if task.kind == "tagging" else chosen


def _reads_both_ways(model: Any) -> bool:
    """Whether the model that is said is an encoder; none is said: no."""
    from nbtune.errors import ModelError
    from nbtune.models.catalogue import CATALOGUE
    from nbtune.models.families import is_encoder
    from nbtune.models.loading import source_of

    if not model:
        return False
    if isinstance(model, str) and model in CATALOGUE:
        return CATALOGUE[model].role == "encoder"
    try:
        return is_encoder(source_of(model).config)
    except ModelError:
        return False  # what is wrong with it is said where it is loaded


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
    if task is None:
        return source
    _refuse_encoder(chosen.name, source.name, task)
    return chosen.source(source, task)


def _refuse_encoder(objective: str, model: str, task: Task) -> None:
    """Refuses to have the packaged encoder write; what else is an encoder shows when its files are read.

    Raises:
        ModelError: with the objective by which it learns such a task.
    """
    from nbtune.errors import ModelError
    from nbtune.models.catalogue import CATALOGUE, DEFAULT_DECODER

    if objective in WRITES and model in CATALOGUE and CATALOGUE[model].role == "encoder":
        reads = suiting(task)
        hint = f"use {DEFAULT_DECODER!r}" if reads == "sft" else f"use objective {reads}, or {DEFAULT_DECODER!r}"
        raise ModelError(f"model {model!r} is an encoder: it reads text and does not write it", hint=hint)


def suiting(task: Task) -> str:
    """The objective by which an encoder learns such a task, to be named in a hint; of instructions, which only a decoder learns, sft."""
    if task.mixes:
        return "sft"
    if task.kind == "classification":
        return "pairs" if task.spec.text_pair is not None else "classification"
    return {"multi-label": "classification", "regression": "regression", "tagging": "tagging", "text": "mlm"}.get(task.kind, "sft")


def refuse_unsuited(objective: str, config: PretrainedConfig) -> None:
    """Refuses to teach a model of an encoder and a decoder anything but answers: it has no head over classes, and goes on with no text.

    Raises:
        SpecError: the objective is another than sft.
    """
    from nbtune.models.families import is_seq2seq

    if is_seq2seq(config) and objective != "sft":
        message = f"a {config.model_type} has an encoder and a decoder, which learn answers to prompts, and the objective is {objective}"
        raise SpecError(message, hint="use objective sft (labels are told apart by their likelihood), or another model, as minilm")


def encoder_for(
    task: Task, spec: FinetuneSpec, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, first: tuple[int, ...] = ()
) -> Encoder:
    """How the task's rows become tokens; `first` are ids that stand before every prompt.

    Raises:
        SpecError: an option or objective that does not suit the model.
        DataError: chat is on, and the tokenizer has no chat template.
    """
    from nbtune.data.encoding import Encoder

    refuse_unsuited(spec.objective, config)
    if spec.class_weights != "none" and spec.objective not in WEIGHED:
        message = f"class_weights is {spec.class_weights}, and objective {spec.objective} has no classes of rows"
        raise SpecError(message, hint=f"leave class_weights out, or use objective {' or '.join(sorted(WEIGHED))}")
    reading = get(spec.objective).reading(task, spec, config, tokenizer)
    return Encoder(tokenizer, task.uses_chat, task.system, first, reading, sets=getattr(spec, "sets", None) or ())
