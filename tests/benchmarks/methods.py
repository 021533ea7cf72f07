"""The contract over the whole product: every method on every family, on bases unquantized, in nf4 and in int8.

    make bench B=methods [ARGS="--only lora,ia3 --families llama,bert --quick --jobs 2"]

A cell keeps every promise of tests/methods/contract.py on a random model of two layers, or is refused before anything is loaded, with a
reason and a way out. The whole product is written to docs/methods-matrix.md; the exit status is 1 where a cell has failed. With `--quick`
bases are unquantized or in nf4. As many processes as there are cores (`--jobs`) take one method of a family at a time. What was found is
kept in build/methods.jsonl for as long as no source changes, so that it can be stopped and goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests' contract and tiny models
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from engine_parts.machine import described

import nbtune
from nbtune.models.quiet import quiet
from tests.methods import contract
from tests.methods.contract import Cell
from tests.methods.support import OPTIONS, SECOND_TIER, TRAINED
from tests.tiny import ENCODERS, FAMILIES, SEQ2SEQ, tiny, tiny_encoder, tiny_seq2seq

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods-matrix.md"
HELD = (None, "nf4", "int8")
"""fp4 goes the way of nf4; the tests hold it to the contract on a Llama."""
FRESH = {
    "beginning": contract.check_beginning,
    "count": contract.check_count,
    "gradients": contract.check_gradients,
    "five steps": contract.check_learning,
}
"""Promises of a method that was just put on."""
STIRRED = {"off": contract.check_off, "splitting": contract.check_splitting, "caching": contract.check_caching}
"""Promises of one that has learnt something."""
KEPT = {"opening": contract.check_opening, "merging": contract.check_merging}
"""Promises of what was written to a folder."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell; `problems` are refusals (one) or failures."""

    method: str
    family: str
    quantization: str | None
    verdict: str
    problems: tuple[str, ...] = ()
    seconds: float = 0.0


def outcomes_of(cells: Sequence[Cell]) -> list[Outcome]:
    """Those of some cells, on one core."""
    import torch

    torch.set_num_threads(1)
    found = []
    for cell in cells:
        began = time.perf_counter()
        with quiet():
            one = outcome(cell)
        found.append(replace(one, seconds=time.perf_counter() - began))
    return found


def outcome(cell: Cell) -> Outcome:
    """Keeps the promises of one cell."""
    place = cell.method, cell.folder.name, cell.quantization
    try:
        cell.estimate()
    except nbtune.NbtuneError as error:
        if error.hint:
            return Outcome(*place, "refused", ("; ".join(str(error).splitlines()),))
        return Outcome(*place, "failed", (f"refused without a way out: {error}",))
    problems = tuple(_broken(cell))
    return Outcome(*place, "failed" if problems else "passed", problems)


def _broken(cell: Cell) -> Iterator[str]:
    """The promises that are not kept, each in a line."""
    try:
        base = cell.attached()
    except Exception as error:  # noqa: BLE001  whatever it is, it belongs into the table
        yield _told("attaching", error)
        return
    for name, check in FRESH.items():
        yield from _asked(name, lambda check=check: check(cell, base))
    contract.stir(base)
    for name, check in STIRRED.items():
        yield from _asked(name, lambda check=check: check(cell, base))
    with tempfile.TemporaryDirectory() as folder:
        for name, check in KEPT.items():
            yield from _asked(name, lambda check=check: check(cell, base, Path(folder)))


def _asked(name: str, check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except Exception as error:  # noqa: BLE001  the same
        yield _told(name, error)


def _told(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{name}: {text}" if isinstance(error, AssertionError) else f"{name}: {type(error).__name__}: {text}"


class Kept:
    """Outcomes on disk, each group as it comes; of other sources than today's none count."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, _sources()
        self._found: dict[tuple[str, str, str | None], Outcome] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            stamp, options, record = json.loads(line)
            if stamp == self._stamp and options == OPTIONS.get(record["method"], {}):
                self._keep(Outcome(**{**record, "problems": tuple(record["problems"])}))

    def _keep(self, one: Outcome) -> None:
        self._found[one.method, one.family, one.quantization] = one

    def of(self, group: Sequence[Cell]) -> list[Outcome] | None:
        """Those of some cells, if all are there."""
        found = [self._found.get((cell.method, cell.folder.name, cell.quantization)) for cell in group]
        return None if None in found else [one for one in found if one is not None]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps those of a group."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.writelines(json.dumps([self._stamp, OPTIONS.get(one.method, {}), asdict(one)]) + "\n" for one in outcomes)
        for one in outcomes:
            self._keep(one)


def _sources() -> str:
    """What the outcomes depend on besides a method's options, as one sum."""
    paths = [*(ROOT / "nbtune").rglob("*.py"), ROOT / "tests" / "methods" / "contract.py", ROOT / "tests" / "tiny.py"]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


def cells(methods: Sequence[str], families: Sequence[str], held: Sequence[str | None], folder: Path) -> Iterator[list[Cell]]:
    """Every one of the product, those of a method on a family together; all families' models are written before the first."""
    models = {family: _written(family, folder / family) for family in families}
    for family, model in models.items():
        objective = "classification" if family in ENCODERS else "sft"
        for method in methods:
            yield [Cell(method, model, OPTIONS.get(method, {}), objective, quantization) for quantization in held]


def _written(family: str, folder: Path) -> Path:
    make = tiny_encoder if family in ENCODERS else tiny_seq2seq if family in SEQ2SEQ else tiny
    return make(family, folder)


def page(outcomes: Sequence[Outcome], command: str) -> str:
    """The table in markdown, with each refusal and each failure below it."""
    families = list(dict.fromkeys(one.family for one in outcomes))
    marks = {"passed": "+", "refused": "-", "failed": "FAILED"}
    found: dict[str, dict[str, list[str]]] = {}
    for one in outcomes:
        found.setdefault(one.method, {}).setdefault(one.family, []).append(marks[one.verdict])
    held = ", ".join(str(each or "unquantized") for each in dict.fromkeys(one.quantization for one in outcomes))
    count = Counter(one.verdict for one in outcomes)
    lines = [
        "# Every method on every family",
        "",
        f"Written by `{command}`, {datetime.now(UTC):%Y-%m-%d}. {described()}",
        "",
        "Random models of two layers; encoders under a new head over classes. A cell tells, for the base held as",
        f"{held}, in this order: + every promise was kept, - refused before anything was loaded, FAILED.",
        "The promises: the count is that of `nbtune.estimate`; exactly what is trained has gradients; five steps lower the loss; before the",
        "first, the model says what the base says (soft prompts and updates that are drawn apart); off, the base's",
        "logits exactly; packing, accumulation and checkpointing change no loss and no gradient; generation with a cache is generation without;",
        "saved and opened on a fresh base, equal logits; opened by peft alone, and merged within 1e-4 where merging is offered.",
        "",
        f"{len(outcomes)} cells: {', '.join(f'{count[verdict]} {verdict}' for verdict in marks)}.",
        "",
        f"| method | {' | '.join(families)} |",
        "|---" * (len(families) + 1) + "|",
        *(f"| `{method}` | {' | '.join(' '.join(by[family]) for family in families)} |" for method, by in found.items()),
    ]
    for verdict in ("failed", "refused"):
        reasons: dict[tuple[str, str], list[str]] = {}
        for one in outcomes:
            for problem in one.problems if one.verdict == verdict else ():
                reasons.setdefault((one.method, _without(problem, one)), []).append(f"{one.family} {one.quantization or ''}".strip())
        if reasons:
            lines += ["", f"## {verdict.capitalize()}", ""]
            lines += [f"- `{method}` on {', '.join(places)}: {reason}" for (method, reason), places in reasons.items()]
    return "\n".join(lines) + "\n"


def _without(problem: str, one: Outcome) -> str:
    """The problem without the model's folder and the quantization, so that equal ones stand together."""
    words = [word for word in problem.split(" ") if "/" not in word or not word.strip("',;:").endswith(f"/{one.family}")]
    return " ".join(words).replace(str(one.quantization), "4 or 8 bits") if one.quantization else " ".join(words)


def _chosen(said: str | None, known: Sequence[str], what: str) -> list[str]:
    """The names that were said with commas between them, or all."""
    names = said.split(",") if said else list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"there is no {what} {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        raise SystemExit(2)
    return names


def main() -> int:
    """Keeps the contract on what is asked for; 1 where a cell has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="these methods alone: lora,ia3")
    parser.add_argument("--families", help="these families alone: llama,bert")
    parser.add_argument("--quick", action="store_true", help="unquantized and nf4 alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    methods = _chosen(args.only, (*TRAINED, *SECOND_TIER), "method")
    families = _chosen(args.families, (*FAMILIES, *ENCODERS, *SEQ2SEQ), "family")
    held = HELD[:2] if args.quick else HELD
    kept = Kept(ROOT / "build" / "methods.jsonl")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as workers:
        every = list(cells(methods, families, held, Path(folder)))
        for found in workers.map(outcomes_of, [group for group in every if kept.of(group) is None]):
            kept.add(found)
            for one in found:
                place = f"{one.family:11s} {one.method:23s} {one.quantization or 'none':5s}"
                print(f"{place} {one.verdict:8s} {one.seconds:5.1f} s  {' | '.join(one.problems)}", flush=True)
    outcomes = [one for group in every for one in kept.of(group) or ()]
    whole = not (args.only or args.families or args.quick)
    text = page(outcomes, "make bench B=methods")
    if whole:
        PAGE.write_text(text)
    else:
        print(text)
    return int(any(one.verdict == "failed" for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
