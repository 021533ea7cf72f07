"""The estimate against what is measured: peak memory above the level before the run, and seconds an epoch.

    make bench B=memory ARGS="--seed 7 --runs 20"

Each run is drawn from the seed and done in a process of its own. There everything is imported, a model of two layers is trained first
(so that libraries have made what they keep), and the kernel's high-water mark of resident memory (VmHWM) is set back; the peak is that
mark after the run less the resident memory before it. Freed memory that the allocator keeps counts, as it does for the user.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

METHODS = ("lora", "full", "head", "last-blocks")
TOKENS = 1600
WORDS = ("the", "parcel", "is", "late", "again", "red", "house", "seven", "water", "light", "road", "green", "table", "sun", "old")


def draw(seed: int, count: int) -> list[dict[str, Any]]:
    """Runs of at most `TOKENS` tokens at once."""
    chance = random.Random(seed)
    runs: list[dict[str, Any]] = []
    while len(runs) < count:
        method = METHODS[len(runs) % len(METHODS)]
        options: dict[str, Any] = {
            "per_device_train_batch_size": chance.choice([1, 2, 3, 4, 6, 8, 12, 16]),
            "gradient_accumulation_steps": chance.choice([1, 1, 2, 3]),
            "gradient_checkpointing": chance.random() < 0.3,
            "dtype": chance.choice([None, None, None, "float32"]),
        }
        words = chance.choice([8, 16, 32, 64, 96, 128, 200])
        answer = chance.choice([1, 4, words // 2])
        if method == "lora":
            options |= {"r": chance.choice([4, 8, 16, 32, 64]), "quantization": chance.choice([None, None, "nf4", "int8"])}
            options |= {"target_modules": chance.choice(["all-linear", "all-linear", ["q_proj", "v_proj"]])}
        if method == "head":
            options |= {"quantization": chance.choice([None, None, "nf4", "int8"])}
        if method == "last-blocks":
            options |= {"num_blocks": chance.choice([1, 2, 4, 8, 15])}
        if options["per_device_train_batch_size"] * words <= TOKENS:
            runs.append({"method": method, "words": words, "answer": answer, "options": options})
    return runs


def measured(run: dict[str, Any]) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", json.dumps(run), "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def one(run: dict[str, Any], folder: Path) -> dict[str, float]:
    """Inside that process: the estimate, then a small run, then the run."""
    import os

    os.environ["NBTUNE_HOME"] = str(folder / "runs")
    import torch

    import nbtune

    torch.set_num_threads(2)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.tiny import tiny_llama

    task = some_task(run["words"], run["answer"], run["options"])
    told = nbtune.estimate(run["method"], task=task, **run["options"])
    small = run["options"] | {"per_device_train_batch_size": 1}
    if "num_blocks" in small:
        small["num_blocks"] = 1
    nbtune.finetune(run["method"], task=task, model=tiny_llama(folder / "tiny"), **small, max_steps=2, num_samples=0).wait()
    nbtune.models.unload()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")
    done = nbtune.finetune(run["method"], task=task, **run["options"], num_train_epochs=2, num_samples=0).wait()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    seconds = list(done.history["seconds"])
    return {
        "estimate": told.peak_memory_bytes,
        "measured": int(status["VmHWM"].split()[0]) * 1024 - before,
        "seconds_told": told.seconds_per_epoch or 0.0,
        "seconds": seconds[-1] - seconds[len(seconds) // 2 - 1],
        "loss": float(done.history["loss"].iloc[-1]),
    }


def some_task(words: int, answer: int, options: dict[str, Any]) -> Any:
    """Two optimizer steps of rows of about that many tokens, of which `answer` words are trained."""
    import nbtune

    chance = random.Random(words)
    count = options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] * 2
    rows = [
        {
            "text": f"{number} " + " ".join(chance.choice(WORDS) for _ in range(words - answer)),
            "answer": f"{number} " + " ".join("yes" for _ in range(answer)),
        }
        for number in range(count)
    ]
    data = {"train": rows, "test": [{"text": "other", "answer": "1"}]}
    return nbtune.Task(
        name="words", kind="generation", data=data, prompt="{{ text }}:", completion=" {{ answer }}", split={"dev": 0, "test": 0}
    )


def main() -> None:
    """Prints a table, a line a run as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--one")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(json.loads(asked.one), asked.folder)))
        return
    errors, slow = [], []
    print(f"{'method':12}{'tokens':>12}{'answer':>7}  {'MB told':>8}{'MB':>7}{'error':>7}  {'s told':>7}{'s':>7}  options", flush=True)
    for run in draw(asked.seed, asked.runs):
        found = measured(run)
        errors.append(found["estimate"] / found["measured"] - 1)
        slow.append(found["seconds_told"] / found["seconds"] - 1)
        options = dict(run["options"])
        size = f"{options.pop('per_device_train_batch_size')}x{run['words']}"
        said = " ".join(f"{key}={value}" for key, value in options.items() if value not in (None, False, 1, "all-linear"))
        print(
            f"{run['method']:12}{size:>12}{run['answer']:>7}  {found['estimate'] / 1e6:8.0f}{found['measured'] / 1e6:7.0f}{errors[-1]:+7.0%}"
            f"  {found['seconds_told']:7.2f}{found['seconds']:7.2f}  {said}",
            flush=True,
        )
    print(f"memory: median error {statistics.median(map(abs, errors)):.1%}, worst {max(map(abs, errors)):.1%}")
    print(f"time: median error {statistics.median(map(abs, slow)):.0%}, worst {max(map(abs, slow)):.0%}")


if __name__ == "__main__":
    main()
