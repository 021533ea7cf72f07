"""The runs that are combined: which can be, and what their folders hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import RunError, SpecError
from nbtune.launch.attached import last_checkpoint
from nbtune.methods import get
from nbtune.models.combining import WAYS
from nbtune.run import Run
from nbtune.start import spec_of
from nbtune.store import RunFolder

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

__all__ = ["Parent", "kind_of", "read", "refuse_apart"]

_ENDS: Final = {"lora": (".lora_A.weight", ".lora_B.weight"), "ia3": (".ia3_l",)}
"""What the names of an adapter's tensors end in, of each kind of which there is a sum."""
_WHICH: Final = "runs of lora, rslora and ia3 can be combined"


@dataclass(frozen=True)
class Parent:
    """A run that is combined, as its folder has it; `kind` is peft's name of the tuner."""

    run: Run
    kind: str
    spec: Any
    config: PeftConfig
    tensors: dict[str, torch.Tensor]
    environment: dict[str, Any]

    @property
    def scaling(self) -> float:
        """What LoRA's B A is multiplied by; 1 for vectors."""
        config: Any = self.config
        if self.kind != "lora":
            return 1.0
        return float(config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r))

    @property
    def held(self) -> str:
        """The base, and its number format or quantization."""
        how = self.environment.get("quantization") or str(self.environment.get("dtype")).removeprefix("torch.")
        return f"{self.spec.model} in {how}"


def kind_of(runs: Sequence[Run]) -> str:
    """The kind of adapter that all of them have.

    Raises:
        SpecError: there is no such kind, too few runs, or one twice.
        RunError: one that is not over, or whose model is gone.
    """
    if len(runs) < 2:  # noqa: PLR2004
        raise SpecError(f"a combination is of two runs or more, not {len(runs)}", hint="name more; run.strength() scales a single one")
    if len({run.id for run in runs}) < len(runs):
        raise SpecError(f"a run is there twice: {', '.join(run.name for run in runs)}", hint="name it once, with a larger weight")
    for run in runs:
        method = get(run.method)
        if method.kind not in WAYS or method.writes_base:
            raise SpecError(f"run {run.name} is of method {run.method}, of which there is no sum", hint=_WHICH)
        if method.kind != get(runs[0].method).kind:
            message = f"run {runs[0].name} is of method {runs[0].method} and {run.name} of {run.method}: there is no sum of them"
            raise SpecError(message, hint="combine runs of one method")
        if run.status in ("queued", "running", "paused"):
            raise RunError(f"run {run.name} is {run.status}: it can be combined when it is over", hint="wait for it: run.wait()")
        if run.spec.get("bound"):
            message = f"the model of run {run.name} was an object of a notebook, so a combination could not be opened again"
            raise RunError(message, hint="save the model into a folder, and train on that")
    return str(get(runs[0].method).kind)


def read(run: Run) -> Parent:
    """The run's adapter, as its last checkpoint has it.

    Raises:
        RunError: there is none, or it is damaged.
        SpecError: there is more in it than can be added up.
    """
    from peft import PeftConfig
    from safetensors.torch import load_file

    from nbtune.training.checkpoints import check

    folder, kind = RunFolder(run.folder), str(get(run.method).kind)
    last = last_checkpoint(folder)
    if problem := check(last):
        raise RunError(f"checkpoint {last.name} of run {run.name} is damaged: {problem}", hint="go on from the one before it: run.resume()")
    tensors = load_file(last / "adapter_model.safetensors")
    config: Any = PeftConfig.from_pretrained(str(last))
    more = next((key.removeprefix("base_model.model.") for key in tensors if not key.endswith(_ENDS[kind])), None)
    if more is not None:
        message = f"run {run.name} trained {more} beside its {kind} adapter, and there is no sum of that"
        raise SpecError(message, hint=f"{_WHICH}, without a head of their own")
    if getattr(config, "rank_pattern", None) or getattr(config, "alpha_pattern", None):
        raise SpecError(f"the layers of run {run.name} have ranks of their own, and there is no sum of them", hint=_WHICH)
    return Parent(run, kind, spec_of(folder), config, tensors, folder.read_json("environment.json"))


def refuse_apart(parents: Sequence[Parent]) -> None:
    """Refuses runs of different bases, and vectors for different layers.

    Raises:
        RunError: another base.
        SpecError: other layers.
    """
    first = parents[0]
    for parent in parents[1:]:
        both = f"runs {first.run.name} and {parent.run.name}"
        if parent.environment.get("weights") != first.environment.get("weights"):
            message = f"{both} are not of one base: {first.held}, and {parent.held}"
            raise RunError(message, hint="combine runs of the same weights, held in the same format")
        if parent.kind == "ia3" and _chosen(parent) != _chosen(first):
            raise SpecError(f"{both} scale different layers", hint="combine runs of the same target_modules and feedforward_modules")


def _chosen(parent: Parent) -> tuple[Any, ...]:
    return parent.spec.target_modules, parent.spec.feedforward_modules
