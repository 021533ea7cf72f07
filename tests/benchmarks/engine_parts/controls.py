"""How long a run takes to do what it is asked, in a thread of the asking process and in a process of its own."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import nbtune
from engine_parts.loops import NEVER
from nbtune.events import Control, Evaluation, Step
from nbtune.store import RunFolder

OPTIONS: dict[str, Any] = {"max_steps": 1_000_000, "eval_steps": NEVER, "save_steps": NEVER, "max_eval_rows": 4, "num_samples": 1}
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Answered:
    """Seconds from each call to its event, by what was asked, and of each of the run's own steps."""

    seconds: dict[str, list[float]]
    steps: list[float]

    @property
    def step(self) -> float:
        """The median."""
        return statistics.median(self.steps)

    @property
    def p95(self) -> float:
        """Over all that was asked."""
        return percentile95([each for seconds in self.seconds.values() for each in seconds])


def percentile95(seconds: list[float]) -> float:
    """The 95th percentile; of a single one itself."""
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]


def asked(run: nbtune.Run, count: int, seed: int = 0) -> Answered:
    """Asks a run that never ends by itself for `count` settings and for some of the rest, at random moments; the last is to stop."""
    chance = random.Random(seed)
    folder = RunFolder(run.folder)  # reads at its own pace, as another session would
    _until(lambda: len([event for event in folder.events() if isinstance(event, Step)]) > 5)
    seconds: dict[str, list[float]] = {}

    def ask(name: str, call: Callable[[], None]) -> None:
        time.sleep(chance.uniform(0, 2) * statistics.median(_steps(folder)))
        told = len(folder.events())
        began = time.time()
        call()
        seconds.setdefault(name, []).append(_took_effect(folder, told) - began)

    for number in range(count):
        ask("set", lambda: run.set(learning_rate=chance.uniform(1e-5, 1e-3)))
        if number % 8 == 7:
            ask("pause", run.pause)
            ask("resume", run.resume)
        if number % 16 == 15:
            looks = _count(folder, Evaluation)
            ask("evaluate", run.evaluate)
            _until(lambda looks=looks: _count(folder, Evaluation) > looks)
    ask("stop", run.stop)
    run.wait()
    return Answered(seconds, _steps(folder))


def _took_effect(folder: RunFolder, told: int) -> float:
    """The time that the next control's event bears, which is written and flushed at once."""
    _until(lambda: any(isinstance(event, Control) for event in folder.events()[told:]))
    return next(event.time for event in folder.events()[told:] if isinstance(event, Control))


def _count(folder: RunFolder, kind: type) -> int:
    return sum(isinstance(event, kind) for event in folder.events())


def _steps(folder: RunFolder) -> list[float]:
    """Seconds of each step so far, the first left out."""
    ends = [event.seconds for event in folder.events() if isinstance(event, Step)][1:]
    return [after - before for before, after in pairwise(ends)]


def _until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(_LOOK_SECONDS)
