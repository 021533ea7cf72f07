"""Runs that are killed at random moments and go on, beside runs that never stopped."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import nbtune
from nbtune.errors import NbtuneError
from nbtune.events import Event, Resumed, Started, Step
from nbtune.training.checkpoints import check, newest_whole
from tests.training.killed import begin, go_on, started
from tests.training.runs import bytes_of, figures

STEPS, INTERVAL = 48, 2
AGAIN = 0.3
"""Chance that a run is killed once more while it goes on."""
CASES: dict[str, dict[str, Any]] = {
    "lora, dropout": {"method": "lora"},
    "full": {"method": "full"},
    "lora, adafactor, NEFTune": {"method": "lora", "optim": "adafactor", "neftune_noise_alpha": 5.0},
    "last-blocks, cached": {"method": "last-blocks", "num_blocks": 1, "activation_cache": True},
}


@dataclass
class Reference:
    """A run that never stopped: what it was asked, its tensors, its history, and the median seconds from its start to its end."""

    model: Path
    options: dict[str, Any]
    tensors: dict[str, bytes]
    history: dict[str, Any]
    seconds: float


@dataclass
class Found:
    """What became of the runs that were killed."""

    runs: int = 0
    kills: int = 0
    same_bytes: int = 0
    same_history: int = 0
    steps_again: int = 0
    before_whole: int = 0
    unreadable: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)


def kills(count: int, seed: int, model: Path, homes: Path) -> Found:
    """Starts `count` runs, the cases in turn, each killed at least once at a moment uniform over its own length, and lets them go on."""
    chance = random.Random(seed)
    references = {name: _reference(options, model, homes / f"whole{number}") for number, (name, options) in enumerate(CASES.items())}
    found = Found()
    for number, name in enumerate(cycle(CASES)):
        if found.runs == count:
            return found
        _one(found, references[name], chance, homes / f"{number}")
        print(f"{found.runs} runs, {found.kills} kills, {found.same_bytes} byte-identical", flush=True)
    raise AssertionError


def _reference(case: dict[str, Any], model: Path, home: Path) -> Reference:
    options = {**case, "max_steps": STEPS, "save_steps": INTERVAL, "eval_steps": 16}
    lived = [_lived(begin, None, f"{home}-{number}", str(model), options) for number in range(3)]
    run = _opened(Path(f"{home}-0"))
    assert run is not None
    return Reference(model, options, bytes_of(run, STEPS), figures(run), statistics.median(filter(None, lived)))


def _one(found: Found, reference: Reference, chance: random.Random, home: Path) -> None:
    """One run, from its start through its kills to its end; one that had ended before its kill is started anew."""
    wanted, killed = 1 + (chance.random() < AGAIN), 0
    run = _opened(home)
    while run is None or run.status != "finished":
        moment = chance.uniform(0, reference.seconds) if killed < wanted else None
        whole = run is not None and (run.folder / "task.json").exists()
        work = (go_on,) if whole else (begin, str(reference.model), reference.options)
        ended = _lived(work[0], moment, str(home), *work[1:]) is not None
        if ended and not killed:
            home = home.with_name(home.name + "a")  # it was over before it could be killed
        run = _opened(home)
        if not ended:
            killed += 1
            _look(found, run)
    found.kills += killed
    found.runs += 1
    found.same_bytes += bytes_of(run, STEPS) == reference.tensors
    found.same_history += figures(run) == reference.history
    found.steps_again = max(found.steps_again, steps_again(run.events()))


def _lived(work: Any, moment: float | None, *arguments: Any) -> float | None:
    """Seconds that a process did `work`; None where it was killed so many seconds after it was ready."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = started(work, theirs, *arguments)
    theirs.close()
    ours.recv_bytes()
    start = time.perf_counter()
    child.join(moment)
    child.kill()
    child.join()
    if child.exitcode == -signal.SIGKILL:
        return None
    assert child.exitcode == 0, f"the process of a run ended with {child.exitcode}"
    return time.perf_counter() - start


def _opened(home: Path) -> nbtune.Run | None:
    """The run of a folder, as a new session finds it."""
    os.environ["NBTUNE_HOME"] = str(home)
    runs = nbtune.runs()
    return nbtune.open(runs[-1].id) if runs else None


def _look(found: Found, run: nbtune.Run | None) -> None:
    """Right after a kill: all that there is can be read, and its checkpoints are what was written."""
    if run is None:
        found.before_whole += 1
        found.places["before there was a folder"] += 1
        return
    try:
        _ = run.history, run.summary, run.spec, repr(run)
        if run.status not in ("interrupted", "finished"):
            found.unreadable.append(f"{run.id} is {run.status}")
        found.unreadable += [f"{run.id}: {problem}" for path in run._folder.checkpoints() if (problem := check(path))]
        if (run.folder / "task.json").exists():
            _ = run.task
        else:
            found.before_whole += 1
        found.places[_place(run)] += run.status != "finished"
    except NbtuneError as error:
        found.unreadable.append(f"{run.id}: {error}")


def _place(run: nbtune.Run) -> str:
    """Where a kill came, by what it left."""
    if not any(isinstance(event, Started) for event in run.events()):
        return "in the preparation"
    if list((run.folder / "checkpoints").glob(".part-*")):
        return "in a checkpoint"
    if (run.folder / ".part-activations").exists():
        return "in the filling of the cache"
    told = max((event.step for event in run.events() if isinstance(event, Step)), default=0)
    newest, _ = newest_whole(run.folder / "checkpoints")
    return "before the first checkpoint" if newest is None else "after the last step" if told == STEPS else "between checkpoints"


def steps_again(events: list[Event]) -> int:
    """The most steps that were told and then, because of one kill, done again."""
    told = most = 0
    for event in events:
        if isinstance(event, Step):
            told = event.step
        elif isinstance(event, Resumed):
            most, told = max(most, told - event.step), event.step
    return most
