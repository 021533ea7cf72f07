"""Which options a form shows at once, and under which headings the others are folded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nbtune.spec import Option

__all__ = ["FIRST", "SECTIONS", "grouped"]

FIRST: Final = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length")
"""What most runs change, beside what the method itself adds."""

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "length of the run, batches": ("max_steps", "gradient_accumulation_steps", "packing", "seed"),
    "looks at dev": ("eval_steps", "max_eval_rows", "sample_steps", "num_samples"),
    "what is forgotten": ("retain", "replay", "kl_to_base"),
    "checkpoints, best step": (
        *("save_steps", "save_total_limit", "metric_for_best_model", "load_best_model_at_end"),
        *("early_stopping_patience", "early_stopping_threshold"),
    ),
    "schedule of the learning rate": ("lr_scheduler_type", "warmup_ratio", "warmup_steps", "decay_ratio"),
    "optimizer and regularization": (
        *("optim", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "adam_beta1", "adam_beta2", "adam_epsilon"),
    ),
    "memory and speed": ("gradient_checkpointing", "activation_cache"),
}
"""The training options by heading; one that stands in none comes under "training"."""

_METHOD: Final = "method"


def grouped(options: Iterable[Option]) -> tuple[list[Option], dict[str, list[Option]]]:
    """(what is shown at once, {heading: what is folded under it}), the headings in their order, then the options' own groups."""
    headings = {name: heading for heading, names in SECTIONS.items() for name in names}
    found = {option.name: option for option in options}
    first = [option for option in found.values() if option.group == _METHOD]
    first += [found[name] for name in FIRST if name in found and found[name].group != _METHOD]
    folded: dict[str, list[Option]] = {heading: [] for heading in SECTIONS}
    for option in found.values():
        if option not in first:
            heading = headings.get(option.name, option.group) if option.group == "training" else option.group
            folded.setdefault(heading, []).append(option)
    return first, {heading: items for heading, items in folded.items() if items}
