"""What is measured in a real kernel: a run with its panel, what events and panel cost, and the way to the first loss point."""

from __future__ import annotations

import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from startup import TASK, Timed, is_loss, is_panel

HERE = Path(__file__).parents[1]
FINETUNE = "%finetune lora --task tickets --max_steps 4 --eval_steps 100 --max_eval_rows 1 --num_samples 0"

PAIRS = """
import json, sys
sys.path.insert(0, {here!r})
from engine_parts.loops import bare_run, our_run
from engine_parts.machine import clock
from engine_parts.rows import rows
now, found = clock({clock!r}), []
for number in range({pairs}):
    chosen = rows({count}, 12, seed=number)
    both = {{"ours": our_run, "bare": bare_run}}
    order = ("ours", "bare") if number % 2 == 0 else ("bare", "ours")
    found.append({{name: both[name](chosen, now, epochs=1, **({{"panel": True}} if name == "ours" else {{}})).seconds for name in order}})
open({out!r}, "w").write(json.dumps(found))
"""

EVENTS = """
import json, sys, time
from nbtune.events import Started, Step
from nbtune.launch.live import Live
from nbtune.run import Run
from nbtune.store import RunFolder
from nbtune_widgets.panel import RunPanel
count, pause = {count}, 0.25

def pace(emit):
    began = time.process_time()
    for step in range(1, count + 1):
        emit(step)
        time.sleep(pause)
    return (time.process_time() - began) / count

folder = RunFolder.create("events", {{"method": "lora", "task": "bench"}})
live = Live(folder)
live.emit(Started(total_steps=count, num_rows=8 * count, trainable_parameters=1, total_parameters=1, metric="accuracy", device="cpu", dtype="float32"))
def emit(step):
    live.emit(Step(step=step, epoch=step / 100, loss=1.0 / step, learning_rate=1e-3, grad_norm=1.0, num_tokens=160 * step, seconds=step * pause,
                   tokens_per_second=600.0, memory_bytes=10**9))

from nbtune.models.shared import warm_up
warm_up()  # the extension began it behind the first cell
time.sleep(2)
found = {{"idle": pace(lambda step: None), "events": pace(emit)}}
panel = RunPanel(Run(folder))
panel.show()
panel._is_ready()  # what its front end says; without one the panel would draw HTML besides
pace(emit)
found["panel"] = pace(emit)
open({out!r}, "w").write(json.dumps(found))
"""


def in_kernel(code: str, **values: Any) -> Any:
    """What `code` wrote as JSON to its `out`, run in a fresh kernel."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NBTUNE_HOME"] = str(Path(folder) / ".nbtune")
        out = Path(folder) / "out.json"
        kernel = Timed(Path(folder))
        try:
            kernel.cell("%load_ext nbtune")
            kernel.cell(code.format(out=str(out), here=str(HERE), **values))
        finally:
            kernel.close()
        return json.loads(out.read_text())


def overhead_pairs(pairs: int, count: int, clock: str) -> list[dict[str, float]]:
    """Seconds of the same steps in our run, its panel shown, and in a bare loop, in turn."""
    return in_kernel(PAIRS, pairs=pairs, count=count, clock=clock)  # type: ignore[no-any-return]


def events_cost(count: int) -> dict[str, float]:
    """CPU seconds of the process for each quarter of a second in which nothing is told, a step is, and a step is with the panel shown."""
    return in_kernel(EVENTS, count=count)  # type: ignore[no-any-return]


def first_loss() -> dict[str, dict[str, float]]:
    """Seconds from the cell to the panel, to each phase's end and to the first loss point: in a cold kernel, then a warm one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".nbtune"
        os.environ["NBTUNE_HOME"] = str(home)
        kernel = Timed(Path(folder))
        try:
            kernel.cell("%load_ext nbtune")
            kernel.cell(TASK)
            found, known = {}, set()
            for name in ("cold", "warm"):
                began = time.time()
                seen = kernel.cell(FINETUNE, {"panel": is_panel, "loss": is_loss})
                path = next(each for each in (home / "runs").glob("*/events.jsonl") if each not in known)
                known.add(path)
                found[name] = _phases(path, began) | {"first pixels of the panel": seen["panel"], "first loss point": seen["loss"]}
        finally:
            kernel.close()
    return found


def _phases(path: Path, began: float) -> dict[str, float]:
    """Seconds that each phase took, by the events that a run left, to the end of its first step."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    marks = [("from the cell to the run", began)]
    for event in events:
        if event["type"] == "phase":
            marks.append((event["text"], event["time"]))
        elif event["type"] == "started":
            marks.append(("first step", event["time"]))
        elif event["type"] == "step":
            marks.append(("", event["time"]))
            break
    return {text: after - start for (text, start), (_, after) in pairwise(marks)}
