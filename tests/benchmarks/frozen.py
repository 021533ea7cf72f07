"""What the cache of activations saves: epochs 2 and on with the frozen blocks computed once, against the same steps without.

    make bench B=frozen ARGS="--dtype float32"

Both train their own copy of the real model on the same rows at the same time, an epoch each in turn, so that the machine's moods hit
both. Logits are computed at trained positions alone in both. Beside the ratio stand the losses and where a step's time goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from nbtune import Task
from nbtune.data.batches import collate, rows_of_step
from nbtune.data.encoded import Encoded
from nbtune.data.encoding import Encoder, encode_rows
from nbtune.data.readers import read
from nbtune.methods import get
from nbtune.models.families import can_pack
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import get as objective_of
from nbtune.spec import FinetuneSpec
from nbtune.training.activations import ActivationCache, open_cache
from nbtune.training.optimizing import make_optimizer
from tests.conftest import BUILD

MODEL = "smollm2-135m"
PROMPT = "Which team handles this ticket?\nTicket: {{ text }}\nTeam:"
SHOWN = {"last-blocks": ({"num_blocks": 1}, 4.0), "head": ({}, 2.0)}
"""Methods with their options, and the least ratio that is promised."""


class Side:
    """One training, with a cache in `folder` or (None) without."""

    def __init__(self, method: str, spec: FinetuneSpec, rows: list[Encoded], folder: Path | None) -> None:
        self.spec, self.rows, self.objective = spec, rows, objective_of("sft")
        self.base = own_base(source_of(MODEL), dtype=spec.dtype, quantization=None, device=None)
        get(method).attach(self.base, spec, "it")
        self.packed = can_pack(self.base.config)
        self.trained = self.base.trained("it")
        self.optimizer = make_optimizer(self.trained, spec)
        self.steps = 0
        self.losses: list[float] = []
        self.parts: Counter[str] = Counter()
        self.cache: ActivationCache | None = None
        self.filling = 0.0
        if folder is not None:
            began = time.perf_counter()
            self.cache, text = open_cache(self.base, "it", rows, objective=self.objective, packed=self.packed, folder=folder, wanted=True)
            self.filling = time.perf_counter() - began
            print(f"  {text} (filled in {self.filling:.1f} s)", flush=True)

    def epoch(self) -> float:
        """Trains one; its seconds."""
        began = time.perf_counter()
        for _ in range(-(-len(self.rows) // self.spec.step_rows)):
            self._step()
        return time.perf_counter() - began

    def _step(self) -> None:
        laps = [time.perf_counter()]
        chosen = rows_of_step(len(self.rows), self.spec.step_rows, self.spec.seed, self.steps)
        with self.base.lease("it", training=True) as model:
            if self.cache is None:
                batch = collate([self.rows[row] for row in chosen], packed=self.packed, pad_id=0).to(self.base.device)
                total, weight = self.objective.loss(model, batch)
            else:
                total, weight = self.cache.loss(model, self.objective, chosen)
            loss = total / weight
            laps.append(time.perf_counter())
            loss.backward()
            laps.append(time.perf_counter())
            torch.nn.utils.clip_grad_norm_(self.trained.values(), self.spec.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            laps.append(time.perf_counter())
        self.steps += 1
        self.losses.append(float(loss.detach()))
        for name, start, end in zip(("forward", "backward", "clip and optimizer"), laps, laps[1:], strict=False):
            self.parts[name] += end - start

    def shares(self) -> str:
        """Where the time of the steps since `parts` was emptied went."""
        whole = sum(self.parts.values())
        return ", ".join(f"{name} {value / whole:.0%}" for name, value in self.parts.items())


class Compared(NamedTuple):
    """Seconds without over seconds with, of each pair of epochs, least first; and the largest difference of a step's loss."""

    ratios: list[float]
    promised: float
    gap: float


def compared(method: str, dtype: str, num_rows: int, pairs: int) -> Compared:
    """Prints one method's figures."""
    options, promised = SHOWN[method]
    spec = get(method).spec.build({**options, "dtype": dtype})
    task = Task(name="tickets", data="demo:tickets", prompt=PROMPT, completion=" {{ team }}")
    rows = encode_rows(Encoder(source_of(MODEL).tokenizer), task.train[:num_rows], max_length=512)[0]
    tokens = sum(len(row.ids) for row in rows)
    print(
        f"{method} {options or ''} {dtype}: {len(rows)} rows, {tokens} tokens, {sum(row.num_trained for row in rows)} trained", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        plain, cached = Side(method, spec, rows, None), Side(method, spec, rows, Path(folder))
        for side in (plain, cached):
            side.epoch()
            side.parts.clear()
        seconds = [(plain.epoch(), cached.epoch()) for _ in range(pairs)]
        if cached.cache is not None:
            cached.cache.close()
    ratios = sorted(without / having for without, having in seconds)
    gap = max(abs(one - other) for one, other in zip(plain.losses, cached.losses, strict=True))
    for name, side, column in (("uncached", plain, 0), ("cached", cached, 1)):
        median = statistics.median(pair[column] for pair in seconds)
        print(f"  {name:9s} {median:7.2f} s an epoch, last loss {side.losses[-1]:.5f}; {side.shares()}")
    verdict = f"median of {pairs} pairs {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}), promised {promised:g}"
    print(f"  ratio {verdict}; largest difference of a step's loss {gap:.1e}", flush=True)
    return Compared(ratios, promised, gap)


def main() -> None:
    """Compares what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--method", choices=tuple(SHOWN), action="append")
    said = parser.parse_args()
    os.environ.setdefault("NBTUNE_CACHE", str(BUILD / "cache"))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; {len(read('demo:tickets')['all'])} rows in demo:tickets")
    for method in said.method or SHOWN:
        compared(method, said.dtype, said.rows, said.pairs)


if __name__ == "__main__":
    main()
