"""Which learning rate each method wants, by the score on dev rows: what the methods' defaults are set by.

    make bench B=rates [ARGS="--side encoder --only lora,ia3 --most 4 --part 1/2"]

Each method is trained on the quickstart's tickets at its default rate, at about three times it and at about a third; while the best of them
is the highest or the lowest, the next one beyond it is tried too. What learns several tasks at once is trained on these and the dates. The
test rows are not looked at. What was found is kept in build/rates*.json, so that it can be stopped and goes on where it was, and in the
end as a table in results.md. Processes with parts of the methods each may run beside each other; the whole, started after them, finds what
they found.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests' account of the methods
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from engine_parts.machine import keep

import nbtune
from nbtune.errors import ModelError, SpecError
from nbtune.methods import get, is_estimator, names

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build" / "rates.json"
FIRST = (
    "layernorm",
    "ia3",
    "vera",
    "fourierft",
    "oft",
    "boft",
    "hra",
    "adapter",
    "prompt-tuning",
    "p-tuning",
    "head",
    "last-blocks",
    "full",
)
"""Those whose rates the literature says least about come first; a search that is stopped has found most then."""
STEP = 3.0


@dataclass(frozen=True)
class Side:
    """What is trained on: one of the two models, with the options that the runs have in common, and those of single methods."""

    model: str
    prompt: str
    options: dict[str, Any]
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def said(self, method: str) -> dict[str, Any]:
        """All options of a method's runs but the rate."""
        return {**self.options, **self.own.get(method, {})}


_FEW_LAYERS = {"target_modules": ["q_proj", "v_proj"]}
_FEW_LAYERS_READ = {"target_modules": ["query", "value"]}
"""For methods that build each weight's change anew at every step: over all layers that takes a CPU minutes."""
_TEAMS = [" account", " billing", " product", " returns", " shipping", " technical"]
"""The answers, of which each is one token."""


SIDES = {
    "decoder": Side(
        "smollm2-135m",
        "Which team handles this ticket?\nTicket: {{ text }}\nTeam:",
        {"num_train_epochs": 1, "per_device_train_batch_size": 4},
        {**dict.fromkeys(("hra", "boft", "fourierft"), _FEW_LAYERS), "trainable-tokens": {"tokens": _TEAMS}},
    ),
    "encoder": Side(
        "minilm",
        "{{ text }}",
        {"objective": "classification", "num_train_epochs": 4},
        dict.fromkeys(("hra", "boft"), _FEW_LAYERS_READ),
    ),
}


@dataclass(frozen=True)
class Tried:
    """What one run came to on the dev rows."""

    score: float
    loss: float
    num_rows: int
    seconds: float

    @property
    def place(self) -> tuple[float, float]:
        """The higher the better; of equal scores the lower loss. A loss that is no number is the worst."""
        return (self.score, -self.loss) if math.isfinite(self.loss) else (-1.0, 0.0)


Search = dict[float, Tried]


def default_rate(method: str) -> float:
    """The method's own."""
    return float(get(method).spec.model_fields["learning_rate"].default)


def search(start: float, try_rate: Callable[[float], Tried], most: int) -> Search:
    """{rate: what it came to} of at most `most` rates, each three times the next."""
    found = {_beside(start, places): try_rate(_beside(start, places)) for places in (0, 1, -1)[:most]}
    low, high = -1, 1
    while len(found) < most:
        best = max(found, key=lambda rate: found[rate].place)
        if best == _beside(start, high) and _beside(start, high + 1) <= 1:
            high += 1
            found[_beside(start, high)] = try_rate(_beside(start, high))
        elif best == _beside(start, low):
            low -= 1
            found[_beside(start, low)] = try_rate(_beside(start, low))
        else:
            break
    return dict(sorted(found.items()))


def _beside(start: float, places: int) -> float:
    return float(f"{start * STEP**places:.0e}")


def trained(method: str, side: Side, rate: float) -> Tried:
    """One run, whose folder is deleted."""
    task = _task(method, side)
    never = {"eval_steps": 100_000, "num_samples": 0, "save_total_limit": 1, "max_eval_rows": len(task.dev)}
    run = nbtune.finetune(method, task=task, model=side.model, learning_rate=rate, **{**side.said(method), **never}).wait()
    summary = run.summary
    nbtune.models.unload()
    shutil.rmtree(run.folder)
    scores = summary["scores"]
    return Tried(scores[f"eval_{task.metric.name}"], scores["eval_loss"], len(task.dev), summary["seconds"])


def _task(method: str, side: Side) -> nbtune.Task:
    tickets = nbtune.Task(name="tickets", data="demo:tickets", prompt=side.prompt, completion=" {{ team }}")
    if method != "multitask-prompt-tuning":
        return tickets
    dates = nbtune.Task(name="dates", data="demo:dates", prompt="{{ text }}\nDate:", completion=" {{ date }}")
    return nbtune.instructions({"tickets": {"task": tickets, "templates": []}, "dates": dates}, inverted=0.0)


class Kept:
    """What was found so far, on disk after each run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[str, dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        for each in sorted(FOUND.parent.glob(f"{FOUND.stem}*.json")):
            self._runs = json.loads(each.read_text()) | self._runs

    def tried(self, method: str, side: str, rate: float) -> Tried:
        """As it was found before, or by a run now."""
        key = json.dumps([side, method, rate, SIDES[side].said(method)])
        if key not in self._runs:
            found = trained(method, SIDES[side], rate)
            self._runs[key] = vars(found)
            self._read()  # what another process has found meanwhile
            self._path.parent.mkdir(exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._runs, indent=1))
            part.replace(self._path)
            print(f"{side} {method} {rate:g}: {found.score:.3f}, loss {found.loss:.3f}, {found.seconds:.0f} s", flush=True)
        return Tried(**self._runs[key])


def searched(methods: list[str], side: str, kept: Kept, most: int) -> tuple[dict[str, Search], dict[str, str]]:
    """({method: its search}, {method: why it is refused})."""
    found: dict[str, Search] = {}
    refused: dict[str, str] = {}
    for method in methods:
        try:
            found[method] = search(default_rate(method), lambda rate, method=method: kept.tried(method, side, rate), most)
        except (ModelError, SpecError) as error:
            refused[method] = "; ".join(str(error).splitlines())
            print(f"{side} {method}: refused: {error}", flush=True)
    return found, refused


def table(found: dict[str, Search], refused: dict[str, str]) -> str:
    """A line a method: dev score (and loss) at each rate, the best of them in bold."""
    lines = ["| method | default | rows right on dev (loss), by learning rate | best |", "|---|---|---|---|"]
    for method, tried in found.items():
        best = max(tried, key=lambda rate: tried[rate].place)
        each = ", ".join(f"{rate:g}: {one.score * one.num_rows:.0f}/{one.num_rows} ({one.loss:.2f})" for rate, one in tried.items())
        lines.append(f"| `{method}` | {default_rate(method):g} | {each} | {best:g} |")
    return "\n".join([*lines, *(f"| `{method}` | | refused: {reason} | |" for method, reason in refused.items())])


def main() -> None:
    """Searches what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=tuple(SIDES), action="append", help="this model alone; may be given again")
    parser.add_argument("--only", help="these methods alone: lora,ia3")
    parser.add_argument("--most", type=int, default=5, help="most rates of a method")
    parser.add_argument("--part", default="1/1", help="of the methods the first of two parts: 1/2")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    home = tempfile.TemporaryDirectory(prefix="nbtune-rates-")  # of each process its own: runs of one project take turns at the device
    os.environ["NBTUNE_HOME"] = home.name
    every = [method for method in dict.fromkeys((*FIRST, *names())) if not is_estimator(get(method))]
    methods = (args.only.split(",") if args.only else every)[part - 1 :: parts]
    kept = Kept(FOUND if parts == 1 else FOUND.with_name(f"{FOUND.stem}-{part}.json"))
    for side in args.side or SIDES:
        found, refused = searched(methods, side, kept, args.most)
        text = table(found, refused)
        print(text, flush=True)
        if parts == 1:
            said = " ".join(sys.argv[1:])
            some = f", {' to '.join(dict.fromkeys((methods[0], methods[-1])))}" if args.only else ""
            keep(f"rates: {SIDES[side].model}{some}", text, f'make bench B=rates ARGS="{said}"' if said else "make bench B=rates")


if __name__ == "__main__":
    main()
