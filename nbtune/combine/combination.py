"""`nbtune.combine`: the adapters of several runs on one base as one more run, which nothing was trained for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from nbtune.combine.options import CombineSpec
from nbtune.combine.parents import Parent, kind_of, read, refuse_apart
from nbtune.errors import RunError, SpecError
from nbtune.events import Checkpoint, Finished, Note
from nbtune.launch.attached import source_of_run
from nbtune.methods import get
from nbtune.models.combining import Part, combined, lora_layers
from nbtune.run import Run, open_run
from nbtune.store import RunFolder, check_name

if TYPE_CHECKING:
    from nbtune.models.base import Trained
    from nbtune.spec import FinetuneSpec

__all__ = ["combine"]

Report = Callable[[str], None]


def _silent(text: str) -> None:
    """No progress wanted."""


def combine(
    runs: Sequence[Run | str],
    weights: Sequence[float] | None = None,
    how: str | None = None,
    *,
    density: float | None = None,
    svd_rank: int | None = None,
    seed: int = 0,
    name: str | None = None,
    report: Report = _silent,
) -> Run:
    """The adapters of several runs on one base as one: a finished run like any other, on the task of the first.

    It can be asked, compared, saved and opened again, and `run.fork()` trains it on. No model is loaded for it.

    Args:
        runs: two or more that are over: handles, names or ids.
        weights: what each counts; left out: the mean of them (1 each for ties, which averages by itself).
        how: cat (the weighted sum exactly), svd, linear, ties, dare_linear, dare_ties, magnitude_prune; the last four also with _svd
            behind the name, which takes minutes.
        density: the part of the numbers that ties, dare and magnitude_prune keep.
        svd_rank: the rank of what svd gives.
        seed: of what dare leaves out.
        name: of the new run; left out: that of the first and `_combined`.
        report: told in a few words what goes on.

    Raises:
        SpecError: an option that cannot be, or runs whose methods or ranks do not go together that way.
        RunError: a run that is not there or not over, of another base, or whose adapter is damaged.
    """
    spec = CombineSpec.build({"weights": weights, "how": how, "density": density, "svd_rank": svd_rank, "seed": seed})
    if isinstance(runs, str | Run):
        raise SpecError(f"runs are a list, not {runs!r:.60}", hint="name two or more: nbtune.combine([one, other])")
    found = [run if isinstance(run, Run) else open_run(run) for run in runs]
    spec = spec.completed(kind_of(found), [run.name for run in found])
    name = check_name(name or f"{found[0].name[:55]}_combined")
    if name in {run.name for run in found}:
        raise SpecError(f"the combination is to be called {name}, as one of its runs is", hint="give it a name of its own")
    parents = [read(run) for run in found]
    refuse_apart(parents)
    child = _child(parents, _rank(spec, parents), name)
    trainable, total = _counted(child, parents[0])
    began = time.perf_counter()
    trained = _computed(child, spec, parents, report)
    summary: dict[str, Any] = {"trainable_parameters": trainable, "total_parameters": total, "steps": 0}
    summary |= _taken([run.summary for run in found], time.perf_counter() - began)
    told = {**spec.model_dump(mode="json"), "runs": [run.id for run in found], "names": [run.name for run in found]}
    told["tasks"] = {each: task for run in found for each, task in run.learnt.items()}
    said = {"method": parents[0].kind, **child.model_dump(mode="json", exclude={"name"}), "bound": False, "combined": told}
    folder = RunFolder.create(name, said)
    try:
        _fill(folder, child, parents[0], trained, summary)
    except OSError as error:
        folder.discard()
        raise RunError(f"the combination could not be written: {error.strerror or error}", hint="free some disk space") from error
    except BaseException:
        folder.discard()
        raise
    folder.release()
    return Run(folder, found[0].task)


def _taken(summaries: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """What it took to get there: the trainings of all runs and the seconds of combining them; the largest of the peaks."""
    return {
        "seconds": seconds + sum(summary["seconds"] for summary in summaries),
        "num_tokens": sum(summary["num_tokens"] for summary in summaries),
        "peak_memory_bytes": max(summary["peak_memory_bytes"] for summary in summaries),
    }


def _rank(spec: CombineSpec, parents: Sequence[Parent]) -> int:
    """The rank of the combined LoRA; 0 of vectors.

    Raises:
        SpecError: matrices of different ranks are to be added.
    """
    if parents[0].kind != "lora":
        return 0
    ranks, how = [int(cast("Any", parent.config).r) for parent in parents], str(spec.how)
    if how == "cat":
        return sum(ranks)
    if how.endswith("svd"):
        return spec.svd_rank or max(ranks)
    if len(set(ranks)) > 1:
        said = ", ".join(f"{parent.run.name} has r {rank}" for parent, rank in zip(parents, ranks, strict=True))
        other = "svd" if how == "linear" else f"{how}_svd"
        raise SpecError(f"how {how} adds matrices of one rank, and {said}", hint=f"use how cat or {other}")
    return ranks[0]


def _child(parents: Sequence[Parent], rank: int, name: str) -> FinetuneSpec:
    """The combined run's spec: the first one's, but for what its adapter is and where a run of it would go on."""
    kind, first = parents[0].kind, parents[0].spec
    spec = get(kind).spec
    own = [item.name for item in spec.options() if item.group == "method"]
    said = {key: getattr(first, key) for key in spec.model_fields if key not in {*own, "launch"}} | {"name": name}
    if kind == "ia3":
        return spec.build(said | {key: getattr(first, key) for key in own})
    layers = {(parent.spec.target_modules, parent.spec.layers_to_transform) for parent in parents}
    targets, blocks = layers.pop()
    if layers:  # they differ: by the layers' names
        targets, blocks = tuple(sorted({layer for parent in parents for layer in lora_layers(parent.tensors)})), None
    return spec.build(said | {"r": rank, "lora_alpha": float(rank), "target_modules": targets, "layers_to_transform": blocks})


def _counted(child: FinetuneSpec, first: Parent) -> tuple[int, int]:
    """(trained, all) parameters.

    Raises:
        SpecError: the rank is more than that of one of the layers.
    """
    from nbtune.estimate import counted

    source, _ = source_of_run(RunFolder(first.run.folder))
    try:
        return counted(first.kind, child, source)
    except SpecError as error:
        raise SpecError(f"combined: {error.message}", hint="use how svd, with an svd_rank that all layers have room for") from error


def _computed(child: Any, spec: CombineSpec, parents: Sequence[Parent], report: Report) -> Trained:
    """The combined adapter, with the configuration by which peft opens it."""
    from nbtune.models.base import Trained

    def tell(done: int, number: int) -> None:
        report(f"{spec.how}: {done} of {number} layers")

    kind, config = parents[0].kind, cast("Any", parents[0].config)
    rank = child.r if kind == "lora" else 0
    parts = [Part(parent.tensors, parent.scaling, weight) for parent, weight in zip(parents, spec.weights or (), strict=True)]
    tensors = combined(kind, parts, str(spec.how), rank=rank, density=spec.density, seed=spec.seed, progress=tell)
    if kind == "lora":
        layers: dict[str, Any] = {"target_modules": set(lora_layers(tensors)), "layers_to_transform": None}
        config = dataclasses.replace(config, r=rank, lora_alpha=float(rank), lora_dropout=0.0, use_rslora=False, **layers)
    return Trained(tensors, config)


def _fill(folder: RunFolder, child: FinetuneSpec, first: Parent, trained: Trained, summary: dict[str, Any]) -> None:
    """Writes all that a finished run's folder holds; its checkpoint is of step 0, from which a fork begins with a new optimizer."""
    from nbtune.models.device import num_threads
    from nbtune.training.checkpoints import Snapshot, learnt_bytes, write
    from nbtune.training.state import State

    first.run.task.save(folder.path)
    folder.write_json("environment.json", first.environment)
    state = State(micro_rows=child.per_device_train_batch_size, threads=num_threads())
    path = write(folder.path / "checkpoints", Snapshot(0, trained, {}, {**state.to_json(), "optimizer": {}}))
    told = folder.spec["combined"]
    parts = ", ".join(f"{name} ({weight:g})" for name, weight in zip(told["names"], told["weights"], strict=True))
    folder.append(Note(level="info", text=f"combined by {told['how']}: {parts}; nothing was trained"))
    folder.append(Checkpoint(step=0, path=f"checkpoints/{path.name}"))
    more = {"adapter_bytes": learnt_bytes(path), "scores": {}, "best_step": None, "checkpoint_step": 0}
    folder.append(Finished(step=0, summary=summary | more))
