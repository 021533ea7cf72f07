"""What a run was trained with, as its folder keeps it: another machine may give other bits."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbtune.models.base import Base

__all__ = ["environment_of"]


def environment_of(base: Base) -> dict[str, Any]:
    """Versions, machine, device and number formats, threads, and a hash that knows the base again."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from nbtune.models.fingerprint import fingerprint

    versions = {}
    for package in ("nbtune", "torch", "transformers", "peft", "bitsandbytes"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": str(base.device),
        "dtype": str(base.dtype),
        "quantization": base.quantization,
        "weights": fingerprint(base),
        "threads": torch.get_num_threads(),
        "process": os.getpid(),
    }
