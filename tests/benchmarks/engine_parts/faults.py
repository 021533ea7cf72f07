"""Faults put into short runs: gradients and losses that are not finite, and a device that is out of memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import nbtune
from nbtune.errors import NbtuneError
from nbtune.events import Control, Note, Step
from nbtune.training.loop import DIVERGED_AFTER
from nbtune.training.step import Stepper
from tests.training.runs import OPTIONS, bytes_of, start

STEPS = OPTIONS["max_steps"]
SHORT: dict[str, Any] = {"eval_steps": STEPS, "max_eval_rows": 1, "num_samples": 0}
VALUES = (float("nan"), float("inf"), float("-inf"))
PATTERNS = ("one", "several apart", "two in a row", "enough in a row")
CASES: tuple[dict[str, Any], ...] = (
    {"method": "lora"},
    {"method": "lora", "optim": "adafactor"},
    {"method": "lora", "optim": "sgd"},
    {"method": "full"},
    {"method": "last-blocks", "num_blocks": 1},
)
MEMORY_CASES: tuple[dict[str, Any], ...] = (
    {"method": "lora", "gradient_accumulation_steps": 2},
    {"method": "lora", "packing": False},
    {"method": "full"},
    {"method": "last-blocks", "num_blocks": 1, "gradient_accumulation_steps": 2},
)


@dataclass
class Recovered:
    """How many of the runs with each pattern recovered, and what went wrong with the others."""

    runs: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    problems: list[str] = field(default_factory=list)


def not_finite(count: int, seed: int, model: Path) -> Recovered:
    """`count` runs in which the gradient or the loss of random steps is not finite.

    Where none goes back, the tensors are compared with those of a run whose same updates were left out by hand.
    """
    chance = random.Random(seed)
    found = Recovered()
    for number in range(count):
        pattern, options = PATTERNS[number % len(PATTERNS)], CASES[number % len(CASES)]
        takes = _takes(pattern, chance)
        plan = {take: (chance.choice(("gradient", "loss")), chance.choice(VALUES)) for take in takes}
        found.runs[pattern] += 1
        options = {**options, **SHORT, "seed": chance.randrange(1000)}
        try:
            with _broken(plan):
                run = start(model, **options).wait()
            problem = _problem(run, takes, back=pattern == "enough in a row")
            if not problem and pattern != "enough in a row":
                with _left_out(takes):
                    reference = start(model, **options).wait()
                found.compared += 1
                problem = "" if bytes_of(run) == bytes_of(reference) else "its tensors are not those of updates left out by hand"
        except NbtuneError as error:
            problem = str(error)
        found.good[pattern] += not problem
        if problem:
            found.problems.append(f"run {number} ({pattern}, {options}, {plan}): {problem}")
    return found


def _takes(pattern: str, chance: random.Random) -> list[int]:
    """Which of a run's steps, numbered as they are taken, are hit."""
    first = chance.randrange(1, STEPS + 1)
    if pattern == "one":
        return [first]
    if pattern == "several apart":
        return sorted(chance.sample(range(1, STEPS + 1, 2), 3))
    in_a_row = 2 if pattern == "two in a row" else DIVERGED_AFTER + chance.randrange(DIVERGED_AFTER)
    first = chance.randrange(1, STEPS - in_a_row + 2)
    return list(range(first, first + in_a_row))


def _problem(run: nbtune.Run, takes: list[int], *, back: bool) -> str:
    """What keeps a run from having recovered; "" where nothing does."""
    from safetensors.torch import load_file

    path = run.folder / "checkpoints" / f"step-{STEPS:06d}"
    tensors = [tensor for file in sorted(path.glob("*.safetensors")) for tensor in load_file(file).values()]
    if run.status != "finished" or not tensors:
        return f"it is {run.status}"
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        return "a tensor is not finite"
    backs = [event for event in run.events() if isinstance(event, Control) and event.action == "back_off"]
    said = [event for event in run.events() if isinstance(event, Note) and "with learning_rate" in event.text]
    if (len(backs), len(said)) != ((1, 1) if back else (0, 0)):
        return f"it went back {len(backs)} times and said so {len(said)} times"
    skipped = [event.step for event in run.events() if isinstance(event, Step) and event.skipped]
    if not back and skipped != takes:
        return f"the updates of {skipped} were left out, not of {takes}"
    return ""


@contextmanager
def _patched(**changes: Callable[..., Any]) -> Iterator[None]:
    before = {name: getattr(Stepper, name) for name in changes}
    for name, change in changes.items():
        setattr(Stepper, name, change)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Stepper, name, method)


@contextmanager
def _broken(plan: dict[int, tuple[str, float]]) -> Iterator[None]:
    """Makes the gradient or the loss of these steps not finite; they are numbered as they are taken, those done again too."""
    take, micro_step, update = Stepper._take, Stepper._micro_step, Stepper._update
    taken = 0

    def _take(self: Stepper, *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        return take(self, *arguments)

    def _micro_step(self: Stepper, *arguments: Any) -> Any:
        what, value = plan.get(taken, ("", 1.0))
        if what != "loss":
            return micro_step(self, *arguments)
        objective = self.objective

        def loss(model: Any, batch: Any) -> Any:
            total, weight = objective.loss(model, batch)
            return total * value, weight

        self.objective = SimpleNamespace(loss=loss)  # type: ignore[assignment]
        try:
            return micro_step(self, *arguments)
        finally:
            self.objective = objective

    def _update(self: Stepper, *arguments: Any) -> Any:
        what, value = plan.get(taken, ("", 1.0))
        if what == "gradient":
            gradient = next(parameter.grad for parameter in self.trained.values() if parameter.grad is not None)
            gradient.view(-1)[0] = value
        return update(self, *arguments)

    with _patched(_take=_take, _micro_step=_micro_step, _update=_update):
        yield


@contextmanager
def _left_out(takes: list[int]) -> Iterator[None]:
    """Leaves the updates of these steps out without asking the optimizer."""
    update = Stepper._update
    taken = 0

    def _update(self: Stepper, *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken not in takes:
            return update(self, *arguments)
        self.optimizer.zero_grad(set_to_none=True)
        return torch.tensor(float("nan"))

    with _patched(_update=_update):
        yield


@dataclass
class OutOfMemory:
    """The largest gap of a step's loss to the run without, of each run; how many of them said what was done."""

    gaps: list[float] = field(default_factory=list)
    said: int = 0
    same_rows: int = 0


def out_of_memory(count: int, seed: int, model: Path) -> OutOfMemory:
    """`count` runs in which a random micro-step runs out of memory, before its forward or after its backward; every third time twice."""
    chance = random.Random(seed)
    found = OutOfMemory()
    whole, micro_steps = [], []
    for case in MEMORY_CASES:
        with _full(set(), after=False) as counted:
            whole.append(start(model, **case, **SHORT, lora_dropout=0.0).wait())
        micro_steps.append(len(counted))
    losses = [run.history["loss"].tolist() for run in whole]
    for number in range(count):
        case = number % len(MEMORY_CASES)
        calls = set(chance.sample(range(1, micro_steps[case] + 1), 2 if number % 3 == 2 else 1))
        with _full(calls, after=chance.random() < 0.5):
            run = start(model, **MEMORY_CASES[case], **SHORT, lora_dropout=0.0).wait()
        ours = run.history["loss"].tolist()
        found.gaps.append(max(abs(mine - theirs) for mine, theirs in zip(ours, losses[case], strict=True)))
        notes = [event for event in run.events() if isinstance(event, Note) and "out of memory: from here on" in event.text]
        found.said += len(notes) == len(calls)
        found.same_rows += run.history["num_tokens"].tolist() == whole[case].history["num_tokens"].tolist()
    return found


@contextmanager
def _full(calls: set[int], *, after: bool) -> Iterator[list[int]]:
    """Has the device run out of memory in these micro-steps; gives the numbers of all, as they come from 1 on."""
    micro_step = Stepper._micro_step
    called: list[int] = []

    def _micro_step(self: Stepper, *arguments: Any) -> Any:
        called.append(len(called) + 1)
        hit = called[-1] in calls
        if hit and not after:
            raise torch.OutOfMemoryError
        done = micro_step(self, *arguments)
        if hit:
            raise torch.OutOfMemoryError
        return done

    with _patched(_micro_step=_micro_step):
        yield called
