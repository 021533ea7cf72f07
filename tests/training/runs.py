"""Short runs of a tiny model, and what has to be equal about two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbtune
from nbtune.events import Event, Step
from tests.examples import echo_task

__all__ = ["OPTIONS", "bytes_of", "figures", "start", "steps_done_again"]

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "save_steps": 3,
    "eval_steps": 6,
    "save_total_limit": 2,
    "max_eval_rows": 4,
    "num_samples": 1,
    "lora_dropout": 0.1,
}
NOT_COMPARED = ("seconds",)


def start(folder: Path, method: str = "lora", **options: Any) -> nbtune.Run:
    """A run of a few steps, on its way."""
    values = {**OPTIONS, **options}
    if method != "lora":
        values.pop("lora_dropout", None)
    return nbtune.finetune(method, task=echo_task(), model=folder, **values)


def bytes_of(run: nbtune.Run, step: int = 12) -> dict[str, bytes]:
    """The tensors of a checkpoint as they lie on the disk."""
    folder = run.folder / "checkpoints" / f"step-{step:06d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def figures(run: nbtune.Run) -> dict[str, Any]:
    """The history but for times."""
    return run.history.drop(columns=list(NOT_COMPARED)).fillna(-1).to_dict()  # type: ignore[no-any-return]


def steps_done_again(events: list[Event]) -> int:
    """How many steps a run told more than once."""
    told = [event.step for event in events if isinstance(event, Step)]
    return len(told) - len(set(told))
