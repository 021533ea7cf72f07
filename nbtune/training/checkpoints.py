"""Checkpoints: what is trained, the optimizer and where the loop was, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtune.errors import RunError

if TYPE_CHECKING:
    import torch

    from nbtune.models.base import Base

__all__ = ["write_checkpoint"]


def write_checkpoint(
    root: Path, step: int, *, base: Base, adapter: str, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int
) -> Path:
    """Writes `root/step-000120/` and removes the oldest beyond `keep`; the folder appears under its name when it is complete.

    Files: the adapter's own (peft's) or trained.safetensors; optimizer.safetensors ({parameter}|{moment}: tensor); state.json.

    Raises:
        RunError: the disk is full or cannot be written; checkpoints that were there stay.
    """
    final = root / f"step-{step:06d}"
    if (final / "state.json").exists():
        return final
    part = root / f".part-{final.name}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        base.save(adapter, part)
        _save_optimizer(part / "optimizer.safetensors", optimizer, base.trained(adapter))
        with (part / "state.json").open("w") as file:
            json.dump({"step": step, **state}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        part.rename(final)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        message = f"the checkpoint of step {step} could not be written: {error.strerror or error}"
        raise RunError(message, hint=f"free some disk space under {root}") from error
    for old in sorted(root.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _save_optimizer(path: Path, optimizer: torch.optim.Optimizer, trained: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file

    names = {id(parameter): name for name, parameter in trained.items()}
    tensors: dict[str, torch.Tensor] = {}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
            tensors[f"{names[id(parameter)]}|{key}"] = tensor.detach().cpu().contiguous()
    save_file(tensors, path)
