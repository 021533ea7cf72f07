"""The machine that a figure was taken on, the clock, and the table that figures are kept in."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results.md"
INSTRUCTION_SETS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Figure:
    """One line of the table; `value` and its spread are ready to print, `target` is what was hoped for."""

    name: str
    value: str
    target: str = ""
    spread: str = ""
    note: str = ""


def clock(kind: str) -> Callable[[], float]:
    """Seconds of the wall, or of this process's CPU time: on a machine that others use, only the latter compares (with one thread)."""
    return time.perf_counter if kind == "wall" else time.process_time


def device() -> str:
    """cuda where it is there, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def finish() -> None:
    """Waits for the device, before a clock is read."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(ours: Sequence[float], others: Sequence[float]) -> tuple[float, str]:
    """The median of pairwise `other / our`, and "least to most" of the pairs."""
    found = [other / our for our, other in zip(ours, others, strict=True)]
    return statistics.median(found), f"{min(found):.2f} to {max(found):.2f}, {len(found)} pair{'s' * (len(found) > 1)}"


def described() -> str:
    """Processor, cores, instruction sets, device, versions, threads and load, in a few lines."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    sets = [name for name in INSTRUCTION_SETS if capabilities.get(name)]
    model = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "accelerate", "trl"))
    load = f"; load average {os.getloadavg()[0]:.1f} as it ended" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores ({', '.join(sets) or 'no wide vectors'}){gpu}; torch threads: {torch.get_num_threads()}{load}.\n"
        f"Python {platform.python_version()}, {versions}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(figures: Sequence[Figure]) -> str:
    """A markdown table."""
    lines = ["| what | measured | target | spread | note |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {each.name} | {each.value} | {each.target} | {each.spread} | {each.note} |" for each in figures)])


def keep(heading: str, text: str, command: str) -> None:
    """Puts a part of results.md in place of the one before that has its heading, with the command, the day and the machine."""
    head = "# What was measured\n\nEach part by one run of its command; nothing here was edited by hand.\n"
    parts = RESULTS.read_text().split("\n## ") if RESULTS.exists() else [head]
    kept = [part for part in parts[1:] if part.split("\n", 1)[0] != heading]
    new = f"{heading}\n\n`{command}`, {datetime.now(UTC):%Y-%m-%d}. {described()}\n\n{text}\n"
    RESULTS.write_text("\n## ".join([parts[0].rstrip("\n") + "\n", *sorted(part.rstrip("\n") + "\n" for part in [*kept, new])]))
