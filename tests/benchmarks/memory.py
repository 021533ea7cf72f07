"""The estimate against what is measured: peak memory above the level before the run, and seconds an epoch.

    make bench B=memory ARGS="--seed 7 --runs 20 --json figures.json"

Each run is drawn from the seed and done in a process of its own. There everything is imported, and a model of two layers is trained
first, so that libraries have made what they keep; then the high-water mark is set back, and the peak is that mark after the run less
the level before it. On the CPU it is the kernel's mark of resident memory (VmHWM): freed memory that the allocator keeps counts, as it
does for the user. On CUDA it is the most that torch has allocated.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
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


def measured(run: dict[str, Any] | None) -> dict[str, Any]:
    """One run in a process of its own; None: a 70B shape is estimated there."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", json.dumps(run), "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def level(device: Any) -> int:
    """Bytes in use now; the high-water mark is set back to it."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def high_water(device: Any) -> int:
    """The most bytes in use since `level`."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def giant(folder: Path) -> dict[str, float]:
    """Seconds in which a Llama of 70B parameters is estimated from its config alone, by method, and before that those of the imports."""
    began = time.perf_counter()
    import nbtune
    from nbtune.models.shared import warm_up

    warm_up()
    seconds = {"imports": time.perf_counter() - began}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "tie_word_embeddings": False}
    config |= {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 64, "num_key_value_heads": 8, "dtype": "bfloat16"}))
    for method in ("lora", "full", "last-blocks"):
        began = time.perf_counter()
        nbtune.estimate(method, model=folder)
        seconds[method] = time.perf_counter() - began
    return seconds


def one(run: dict[str, Any], folder: Path) -> dict[str, float]:
    """Inside that process: the estimate, then a small run, then the run."""
    import os

    os.environ["NBTUNE_HOME"] = str(folder / "runs")
    import torch

    import nbtune
    from nbtune.models.device import best_device

    device = best_device()
    torch.set_num_threads(2)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.tiny import tiny_llama

    task = some_task(run["words"], run["answer"], run["options"])
    told = nbtune.estimate(run["method"], task=task, **run["options"])
    small = run["options"] | {"per_device_train_batch_size": 1}
    if "num_blocks" in small:
        small["num_blocks"] = 1
    if "r" in small:
        small["r"] = 4  # the tiny model's weights have no room for more than 32
    nbtune.finetune(run["method"], task=task, model=tiny_llama(folder / "tiny"), **small, max_steps=2, num_samples=0).wait()
    nbtune.models.unload()
    before = level(device)
    done = nbtune.finetune(run["method"], task=task, **run["options"], num_train_epochs=2, num_samples=0).wait()
    peak = high_water(device) - before
    seconds = list(done.history["seconds"])
    return {
        "estimate": told.peak_memory_bytes,
        "measured": peak,
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
    parser.add_argument("--json", type=Path, help="a file that keeps each run's options and figures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run = json.loads(asked.one)
        print(json.dumps(one(run, asked.folder) if run else giant(asked.folder)))
        return
    found = compared(asked.seed, asked.runs)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    for what in ("memory", "time"):
        errors = [abs(run[f"{what}_error"]) for run in found]
        print(f"{what}: median error {statistics.median(errors):.1%}, worst {max(errors):.1%}")
    print("a 70B shape:", ", ".join(f"{what} {seconds:.1f} s" for what, seconds in measured(None).items()))


def compared(seed: int, runs: int) -> list[dict[str, Any]]:
    """Each run with its figures; a line is printed as it ends."""
    print(f"{'method':12}{'tokens':>12}{'answer':>7}  {'MB told':>8}{'MB':>7}{'error':>7}  {'s told':>7}{'s':>7}  options", flush=True)
    found = []
    for run in draw(seed, runs):
        seen = measured(run)
        seen["memory_error"] = seen["estimate"] / seen["measured"] - 1
        seen["time_error"] = seen["seconds_told"] / seen["seconds"] - 1
        found.append({**run, **seen})
        options = dict(run["options"])
        size = f"{options.pop('per_device_train_batch_size')}x{run['words']}"
        said = " ".join(f"{key}={value}" for key, value in options.items() if value not in (None, False, 1, "all-linear"))
        print(
            f"{run['method']:12}{size:>12}{run['answer']:>7}  {seen['estimate'] / 1e6:8.0f}{seen['measured'] / 1e6:7.0f}"
            f"{seen['memory_error']:+7.0%}  {seen['seconds_told']:7.2f}{seen['seconds']:7.2f}  {said}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
