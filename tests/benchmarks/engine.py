"""The engine beside what people use today: a table of ratios, from one run of this file each.

    make bench B=engine [ARGS="--quick --only trl"]

Sections: overhead, trl, events, start, memory. It prints the table and keeps it in results.md, with the command and the machine. On a
machine that others use too, `OMP_NUM_THREADS=1 make bench B=engine ARGS="--clock cpu"` counts the process's CPU seconds in place of
the wall's. Nothing here knows the device: on a CUDA GPU it prints the same table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from engine_parts.machine import Figure, clock, described, ratios, table

RESULTS = Path(__file__).with_name("results.md")
SECTIONS = ("overhead", "trl", "events", "start", "memory")
SETS = {20: 7, 50: 25}  # tokens of a row, and the prompt words that come to about as many with its number, label and end


def overhead(args: argparse.Namespace) -> list[Figure]:
    """Our run, panel shown, against a bare loop over the same batches and loss."""
    from engine_parts.kernels import overhead_pairs

    count = args.rows or (48 if args.quick else 160)
    found = overhead_pairs(args.pairs or 5, count, args.clock)
    over = [100 * (pair["ours"] / pair["bare"] - 1) for pair in found]
    return [
        Figure(
            "time over a bare torch loop, panel shown",
            f"{statistics.median(over):+.1f} %",
            "<= 3 %",
            f"{min(over):+.1f} to {max(over):+.1f}, {len(over)} pairs",
            f"{count // 8} steps of 8 rows",
        )
    ]


def trl(args: argparse.Namespace) -> list[Figure]:
    """Two epochs less one against TRL and HF's Trainer."""
    from engine_parts import rivals
    from engine_parts.loops import Epoch, our_epoch
    from engine_parts.rows import rows, tokens

    now = clock(args.clock)
    figures = []
    for wanted, words in SETS.items():
        chosen = rows(args.rows or (48 if args.quick else 240), words)
        runs: dict[str, Callable[[], Epoch]] = {"nbtune": partial(our_epoch, chosen, now)}
        runs |= {name: partial(rivals.trl_run, chosen, now, **options) for name, options in rivals.TRL.items()}
        runs["HF Trainer"] = partial(rivals.hf_run, chosen, now)
        found: dict[str, list[Epoch]] = {name: [] for name in runs}
        for number in range(args.pairs or 1):
            for name in list(runs) if number % 2 == 0 else list(runs)[::-1]:
                found[name].append(runs[name]())
                print(f"{wanted} tokens, {name}: {found[name][-1]}", flush=True)
        figures += _against(found, wanted, f"{len(chosen)} rows, {tokens(chosen):.0f} tokens each on average")
    return figures


def _against(found: dict[str, list], wanted: int, what: str) -> list[Figure]:
    seconds = {name: [epoch.seconds for epoch in epochs] for name, epochs in found.items()}
    rivals = [name for name in seconds if name.startswith("TRL,")]
    best = min(rivals, key=lambda name: statistics.median(seconds[name]))
    targets = {"TRL defaults": {20: ">= 3", 50: ">= 2.3"}[wanted], best: ">= 1.3"}
    figures = []
    for name, theirs in seconds.items():
        if name == "nbtune":
            continue
        value, spread = ratios(seconds["nbtune"], theirs)
        losses = (
            f"loss {statistics.median(e.loss for e in found['nbtune']):.2f}, theirs {statistics.median(e.loss for e in found[name]):.2f}"
        )
        called = f"{name} (its best here)" if name == best else name
        figures.append(Figure(f"{called}, rows of {wanted} tokens", f"{value:.2f}x", targets.get(name, ""), spread, f"{what}; {losses}"))
    return figures


def events(args: argparse.Namespace) -> list[Figure]:
    """What telling of a step costs, of the step's CPU time."""
    from engine_parts.kernels import events_cost
    from engine_parts.loops import bare_run
    from engine_parts.rows import rows

    found = events_cost(20 if args.quick else 80)
    epoch = bare_run(rows(32, SETS[20]), clock("cpu"))
    step = epoch.seconds / epoch.steps

    def figure(name: str, target: str, cost: float) -> Figure:
        return Figure(name, f"{100 * cost / step:.2f} %", target, "", f"{1e3 * cost:.2f} ms of {1e3 * step:.0f}")

    return [
        figure("events alone, of a step's CPU time", "", found["events"] - found["idle"]),
        figure("events and panel, of a step's CPU time", "<= 1 %", found["panel"] - found["idle"]),
    ]


def start(args: argparse.Namespace) -> list[Figure]:
    """From the cell to the first loss point."""
    from engine_parts.kernels import first_loss

    rounds = [first_loss() for _ in range(args.pairs or (1 if args.quick else 3))]
    figures = []
    for name in ("cold", "warm"):
        for what in rounds[0][name]:
            values = [each[name][what] for each in rounds if what in each[name]]
            part = "" if what.startswith("first p") or what == "first loss point" else "of it: "
            spread = f"{min(values):.2f} to {max(values):.2f}, {len(values)} round{'s' * (len(values) > 1)}"
            figures.append(Figure(f"{name} kernel, {part}{what}", f"{statistics.median(values):.2f} s", "", spread))
    return figures


def memory(args: argparse.Namespace) -> list[Figure]:
    """The estimate's peak memory against what is measured, over runs drawn by a seed, and its seconds for a 70B shape."""
    from memory import compared, measured

    found = [abs(run["memory_error"]) for run in compared(args.seed, args.rows or (4 if args.quick else 20))]
    what = f"{len(found)} runs drawn by seed {args.seed}"
    *_, slowest = sorted((seconds, what) for what, seconds in measured(None).items() if what != "imports")
    return [
        Figure("estimated against measured peak memory, median error", f"{100 * statistics.median(found):.1f} %", "<= 10 %", "", what),
        Figure("estimated against measured peak memory, worst", f"{100 * max(found):.1f} %", "<= 30 %", "", what),
        Figure(
            "estimate of a 70B shape from its config, slowest method", f"{slowest[0]:.1f} s", "< 10 s", "", f"{slowest[1]}, after imports"
        ),
    ]


def keep(section: str, figures: list[Figure], command: str) -> None:
    """Puts a section's table in place of the one before."""
    head = "# What was measured\n\nEach part by one run of its command; nothing here was edited by hand.\n"
    parts = RESULTS.read_text().split("\n## ") if RESULTS.exists() else [head]
    kept = [part for part in parts[1:] if part.split("\n", 1)[0] != f"engine: {section}"]
    text = f"engine: {section}\n\n`{command}`, {datetime.now(UTC):%Y-%m-%d}. {described()}\n\n{table(figures)}\n"
    RESULTS.write_text("\n## ".join([parts[0].rstrip("\n") + "\n", *sorted(part.rstrip("\n") + "\n" for part in [*kept, text])]))


def main() -> None:
    """Runs the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; may be given again")
    parser.add_argument("--quick", action="store_true", help="fewer rows, for a look within minutes")
    parser.add_argument("--rows", type=int, help="rows of each set; of section memory, runs")
    parser.add_argument("--pairs", type=int, help="how often each is run, in turn")
    parser.add_argument("--seed", type=int, default=12, help="what the runs of section memory are drawn by")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="seconds of the wall, or of the process's CPU time")
    args = parser.parse_args()
    command = f'make bench B=engine ARGS="{" ".join(sys.argv[1:])}"' + (
        "" if args.clock == "wall" else f", OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    sections = {"overhead": overhead, "trl": trl, "events": events, "start": start, "memory": memory}
    with tempfile.TemporaryDirectory() as folder:
        for section in args.only or SECTIONS:
            os.environ["NBTUNE_HOME"] = str(Path(folder) / section)
            figures = sections[section](args)
            keep(section, figures, command)
            print(table(figures), flush=True)


if __name__ == "__main__":
    main()
