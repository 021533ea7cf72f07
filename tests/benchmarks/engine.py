"""The engine beside what people use today: a table of ratios, from one run of this file each.

    make bench B=engine [ARGS="--quick --only trl"]

Sections: overhead, trl, frozen, events, start, memory, kills, controls, faults. It prints the table and keeps it in results.md, with the
command and the machine. On a machine that others use too, `OMP_NUM_THREADS=1 make bench B=engine ARGS="--clock cpu"` counts the process's
CPU seconds in place of the wall's. Nothing here knows the device: on a CUDA GPU it prints the same table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests' tiny model and short runs

from engine_parts.machine import Figure, clock, device, keep, ratios, table

SECTIONS = ("overhead", "trl", "frozen", "events", "start", "memory", "kills", "controls", "faults")
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


def frozen(args: argparse.Namespace) -> list[Figure]:
    """Epochs 2 and on with the frozen blocks computed once, against our own path without; float32 for the losses' sake, too."""
    from frozen import SHOWN, compared

    figures = []
    for dtype in ("bfloat16", "float32"):
        for method in SHOWN:
            found = compared(method, dtype, args.rows or (32 if args.quick else 64), args.pairs or 5)
            spread = f"{found.ratios[0]:.2f} to {found.ratios[-1]:.2f}, {len(found.ratios)} pairs"
            figures.append(
                Figure(
                    f"activation cache, {method}, {dtype}",
                    f"{statistics.median(found.ratios):.2f}x",
                    f">= {found.promised:g}",
                    spread,
                    f"largest difference of a step's loss {found.gap:.1e}",
                )
            )
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


def kills(args: argparse.Namespace) -> list[Figure]:
    """kill -9 at random moments, against runs that never stopped."""
    from engine_parts import kills as part

    from tests.tiny import tiny_llama

    homes = Path(os.environ["NBTUNE_HOME"])
    found = part.kills(8 if args.quick else 50, args.seed, tiny_llama(homes / "model"), homes)
    print("\n".join(found.unreadable), flush=True)
    where = ", ".join(f"{count} {place}" for place, count in found.places.most_common())
    what = f"{found.kills} kills of {found.runs} runs, seed {args.seed}"
    return [
        Figure("kill -9: adapter and optimizer byte-identical in the end", f"{found.same_bytes} of {found.runs}", "all", "", what),
        Figure("kill -9: history equal but for times", f"{found.same_history} of {found.runs}", "all", "", ", ".join(part.CASES)),
        Figure("kill -9: most steps done again", f"{found.steps_again}", f"<= {part.INTERVAL}", "", "the save interval is the target"),
        Figure("kill -9: folders or checkpoints that could not be read", f"{len(found.unreadable)}", "0", "", where),
        Figure(
            "kill -9: so early that the run begins anew", f"{found.before_whole}", "", "", "nbtune.runs() and open were asked all the same"
        ),
    ]


def controls(args: argparse.Namespace) -> list[Figure]:
    """From a call to its event, in thread and process, on a tiny model and a real one."""
    from engine_parts import controls as part
    from engine_parts.rows import MODEL, rows, task

    import nbtune
    from tests.tiny import tiny_llama

    models = {"a tiny model": tiny_llama(Path(os.environ["NBTUNE_HOME"]) / "model"), MODEL: MODEL}
    chosen = task(rows(args.rows or 64, SETS[20]))
    figures = []
    for name, model in models.items():
        for launch in ("thread", "process"):
            run = nbtune.finetune("lora", task=chosen, model=model, name=f"asked_{launch}", launch=launch, **part.OPTIONS)
            found = part.asked(run, 8 if args.quick else 40, args.seed)
            each = ", ".join(f"{what} {1e3 * part.percentile95(seconds):.0f} ({len(seconds)})" for what, seconds in found.seconds.items())
            took = f"{1e3 * found.p95:.0f} ms"
            steps = f"a step {1e3 * found.step:.0f} ms (p95 {1e3 * part.percentile95(found.steps):.0f})"
            note = f"{steps}; p95 by control, in ms: {each}"
            load = f"load {os.getloadavg()[0]:.1f}"
            target = f"<= {1e3 * found.step + 50:.0f} ms"
            figures.append(Figure(f"p95 from a call to its control taking effect, {name}, {launch}", took, target, load, note))
            print(figures[-1], flush=True)
    return figures


def faults(args: argparse.Namespace) -> list[Figure]:
    """Gradients and losses that are not finite, and a device out of memory, at random steps."""
    from engine_parts import faults as part

    from tests.tiny import tiny_llama

    model = tiny_llama(Path(os.environ["NBTUNE_HOME"]) / "model")
    broken = part.not_finite(12 if args.quick else 100, args.seed, model)
    print("\n".join(broken.problems), flush=True)
    runs, good = sum(broken.runs.values()), sum(broken.good.values())
    each = ", ".join(f"{pattern}: {broken.good[pattern]} of {broken.runs[pattern]}" for pattern in broken.runs)
    same = f"seed {args.seed}; {broken.compared} of them byte-identical to updates left out by hand"
    memory = part.out_of_memory(6 if args.quick else 30, args.seed, model)
    within = sum(gap <= 1e-4 for gap in memory.gaps)
    said = f"largest gap of a step's loss {max(memory.gaps):.1g}; {memory.said} said it; rows and tokens equal in {memory.same_rows}"
    return [
        Figure("recovers from gradients and losses that are not finite", f"{good} of {runs}", "all", each, same),
        Figure("out of memory: losses within 1e-4 of the run without", f"{within} of {len(memory.gaps)}", "all", "", said),
    ]


def main() -> None:
    """Runs the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; may be given again")
    parser.add_argument("--quick", action="store_true", help="fewer rows, for a look within minutes")
    parser.add_argument("--rows", type=int, help="rows of each set; of section memory, runs")
    parser.add_argument("--pairs", type=int, help="how often each is run, in turn")
    parser.add_argument("--seed", type=int, default=12, help="of what is random in memory, kills and faults")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="seconds of the wall, or of the process's CPU time")
    args = parser.parse_args()
    command = f'make bench B=engine ARGS="{" ".join(sys.argv[1:])}"' + (
        "" if args.clock == "wall" else f", OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    functions = (overhead, trl, frozen, events, start, memory, kills, controls, faults)
    sections = dict(zip(SECTIONS, functions, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        for section in args.only or SECTIONS:
            os.environ["NBTUNE_HOME"] = str(Path(folder) / section)
            figures = sections[section](args)
            keep(f"engine: {section}{', on a GPU' if device() == 'cuda' else ''}", table(figures), command)
            print(table(figures), flush=True)


if __name__ == "__main__":
    main()
