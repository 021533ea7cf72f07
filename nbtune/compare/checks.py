"""What a grid verifies of itself: same rows, same questions, adapters really on, and the base really the base."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach, Asking, Setting
    from nbtune.inference import Engine

__all__ = ["check_columns"]


def check_columns(approaches: Sequence[Approach], asking: Asking, prompts: Sequence[str], setting: Setting) -> tuple[list[str], list[str]]:
    """(checks that held, warnings) of a grid's columns."""
    digest = hashlib.sha256("\0".join(prompts).encode()).hexdigest()[:12]
    checks = [f"same rows: {len(prompts)} prompts in every column (sha256 {digest})", f"same decoding: {asking}"]
    warnings: list[str] = []
    for approach in approaches:
        warnings += approach.notes
        if approach.run_id is not None and prompts:
            _check_tuned(approach, prompts[0], setting, checks, warnings)
    names = {approach.engine.base.name for approach in approaches}
    if len(names) > 1:
        warnings.append(f"the columns do not share one base: {', '.join(sorted(names))}")
    return checks, warnings


def _untouched(approach: Approach, setting: Setting) -> Engine:
    """The base of a run that trained parts of its own copy; where that has a head over classes, a copy with the same."""
    from nbtune.models.loading import source_of
    from nbtune.models.shared import shared_base

    tuned = approach.engine.base
    if not tuned.labels and source_of(setting.model).name == tuned.name:
        return setting.engine(approach.task)
    source = source_of(tuned.name).over(tuned.labels)
    held = {"dtype": str(tuned.dtype).removeprefix("torch."), "quantization": tuned.quantization, "device": str(tuned.device)}
    return replace(approach.engine.off(), base=shared_base(source, **held))


def _check_tuned(approach: Approach, prompt: str, setting: Setting, checks: list[str], warnings: list[str]) -> None:
    """Logits of the first prompt with what was trained on and off, and off against the base before anything was attached."""
    engine = approach.engine
    if hasattr(engine, "classical"):
        checks.append(f"{approach.label}: no weight of {engine.base.name} was trained, a classifier reads its states")
        return
    adapter = engine.base.has_adapter(approach.run_id or "")
    off = engine.off() if adapter else _untouched(approach, setting)
    difference = float((engine.logits(prompt) - off.logits(prompt)).abs().max())
    what = "adapter" if adapter else "trained parts"
    if difference > 0:
        checks.append(f"{approach.label}: {what} on, logits differ from the base's by up to {difference:.3g}")
    else:
        warnings.append(f"{approach.label}: its {what} changed nothing: logits are the base's")
    drift = off.base.drift()
    if drift == 0:
        checks.append(f"{approach.label}: {what} off, logits equal those of the base as it was loaded")
    else:
        warnings.append(f"{approach.label}: with its {what} off, logits are {drift:.3g} away from the base as it was loaded")
