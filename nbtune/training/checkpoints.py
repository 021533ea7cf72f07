"""Checkpoints: what is trained, the optimizer and where the loop was, written whole or not at all, and read only where they are whole."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from nbtune.errors import RunError
from nbtune.models.base import MOST_COPIED
from nbtune.store import in_order

if TYPE_CHECKING:
    import torch

    from nbtune.models.base import Base

__all__ = [
    "LEARNT_FILES",
    "Snapshot",
    "Writer",
    "check",
    "learnt_bytes",
    "load_optimizer",
    "newest_whole",
    "read_state",
    "snapshot",
    "step_of",
    "whole_checkpoints",
]

MARKER: Final = "state.json"
LEARNT_FILES: Final = (
    *("adapter_model.safetensors", "adapter_config.json"),
    *("trained.safetensors", "features.safetensors", "classifier.json"),
)
"""What a checkpoint may hold of what was learnt; the rest is for going on."""


class Writes(Protocol):
    """What was learnt: it knows how to write itself into a folder."""

    def write(self, folder: Path) -> None:
        """Writes its files."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of a training in the CPU's memory; `state` is what becomes state.json."""

    step: int
    trained: Writes
    moments: dict[str, torch.Tensor]
    state: dict[str, Any]


def snapshot(
    step: int, *, base: Base, adapter: str, optimizer: torch.optim.Optimizer, state: dict[str, Any], goes_on: bool
) -> tuple[Snapshot, bool]:
    """The moment as it is now, under the base's lease; and whether it is a copy, because training `goes_on` while it is written."""
    trained = base.state(adapter)
    names = {id(parameter): name for name, parameter in base.named(adapter).items()}
    moments: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            name = f"{names[id(parameter)]}|{key}"
            if hasattr(value, "detach"):
                moments[name] = value.detach()
            else:
                scalars[name] = value
    tensors = [*trained.tensors.values(), *moments.values()]
    copied = goes_on and (base.device.type != "cpu" or sum(tensor.nbytes for tensor in tensors) <= MOST_COPIED)
    taken = trained.copied() if copied else trained
    kept = {key: _copy(value) if copied else value for key, value in moments.items()}
    return Snapshot(step, taken, kept, {"step": step, **state, "optimizer": scalars}), copied


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu() if tensor.device.type != "cpu" else tensor.clone()


def write(root: Path, moment: Snapshot) -> Path:
    """Writes `root/step-000120/`, which appears under its name when it is complete and on the disk.

    Files: the adapter's own (peft's) or trained.safetensors; optimizer.safetensors ({parameter}|{moment}: tensor); last the marker
    state.json, with the size and the CRC-32 of each of the others.

    Raises:
        RunError: the disk is full or cannot be written; checkpoints that were there stay.
    """
    final = root / f"step-{moment.step:06d}"
    part = root / f".part-{final.name}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        moment.trained.write(part)
        _write_moments(part / "optimizer.safetensors", moment.moments)
        files = {path.name: _seal(path) for path in sorted(part.iterdir())}
        with (part / MARKER).open("w") as file:
            json.dump({**moment.state, "files": files}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        _sync(part)
        _sync_events(root.parent)
        remove(final)
        part.rename(final)
        _sync(root)
        _sync(root.parent)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        message = f"the checkpoint of step {moment.step} could not be written: {error.strerror or error}"
        raise RunError(message, hint=f"free some disk space under {root}") from error
    return final


def retain(newest: Path, keep: int, best: int | None) -> None:
    """Removes the oldest beyond `newest` and the `keep` - 1 before it, but never that of step `best`.

    Damaged ones of later steps, before which a run has gone on, are in nobody's way until they are written again.
    """
    found = in_order(newest.parent.glob("step-*"))
    older = found[: found.index(newest)]
    for old in older[: max(0, len(older) + 1 - keep)]:
        if best is None or old.name != f"step-{best:06d}":
            remove(old)


def remove(path: Path) -> None:
    """Removes a checkpoint where that can be done, the marker first: what is left where this is cut short is no checkpoint."""
    with suppress(OSError):
        (path / MARKER).unlink()
    shutil.rmtree(path, ignore_errors=True)


def check(path: Path) -> str:
    """What is wrong with a checkpoint, in a few words; "" where all its files are as they were written."""
    try:
        files = json.loads((path / MARKER).read_text())["files"]
        for name, (size, crc) in files.items():
            data = path / name
            if data.stat().st_size != size:
                return f"{name} has {data.stat().st_size:,} bytes of {size:,}"
            if _crc(data) != crc:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def whole_checkpoints(root: Path) -> list[Path]:
    """Those with a marker, the oldest first; what is in their files is not looked at."""
    return [path for path in in_order(root.glob("step-*")) if (path / MARKER).exists()]


def newest_whole(root: Path, known: Callable[[int], bool] = lambda _step: True) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are right, of the steps that are `known`, and what is wrong with each newer one of those."""
    damaged: list[str] = []
    for path in reversed(whole_checkpoints(root)):
        if not known(step_of(path)):
            continue
        problem = check(path)
        if not problem:
            return path, damaged
        damaged.append(f"checkpoint {path.name} is damaged ({problem})")
    return None, damaged


def learnt_bytes(path: Path) -> int:
    """What was learnt as a checkpoint has it, in bytes on the disk; 0 where there is none."""
    return sum((path / name).stat().st_size for name in LEARNT_FILES if (path / name).exists())


def step_of(path: Path) -> int:
    """The step of a checkpoint, as its folder is called."""
    return int(path.name.removeprefix("step-"))


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint.

    Raises:
        RunError: it cannot be read.
    """
    try:
        state = json.loads((path / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"the checkpoint {path} cannot be read: {error}", hint="use another: run.fork(step=...)") from error
    return dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, trained: dict[str, Any], path: Path) -> None:
    """Puts the moments of a checkpoint back, bit for bit, each where its parameter is."""
    from safetensors.torch import load_file

    optimizer.state.clear()
    for name, value in {**load_file(path / "optimizer.safetensors"), **read_state(path)["optimizer"]}.items():
        owner, _, key = name.rpartition("|")
        parameter = trained[owner]
        on_device = hasattr(value, "to") and (key != "step" or optimizer.defaults.get("fused"))
        optimizer.state[parameter][key] = value.to(parameter.device) if on_device else value


class Writer:
    """Writes checkpoints one at a time, behind the loop's back where it can. A failed one is told and leaves those before it."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root, self._keep = root, keep
        for part in root.glob(".part-*"):  # of a process that was killed
            shutil.rmtree(part, ignore_errors=True)
        self._thread: threading.Thread | None = None
        self._done: list[_Written] = []
        self.best: int | None = None

    def submit(self, moment: Snapshot, *, behind: bool) -> None:
        """Begins to write it, after the one before is done; with `behind` this returns at once."""
        self.wait()
        if not behind:
            self._write(moment)
            return
        self._thread = threading.Thread(target=self._write, args=(moment,), name="nbtune-checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def written(self) -> list[_Written]:
        """What was written, or failed to be, since this was asked before."""
        done, self._done = self._done, []
        return done

    def _write(self, moment: Snapshot) -> None:
        try:
            path = write(self._root, moment)
            retain(path, self._keep, self.best)
            self._done.append(_Written(moment.step, path, None))
        except RunError as error:
            self._done.append(_Written(moment.step, None, error))
        except Exception as error:  # noqa: BLE001  told where the loop asks; a thread has nobody to raise to
            self._done.append(_Written(moment.step, None, RunError(f"the checkpoint of step {moment.step} could not be written: {error}")))


@dataclass(frozen=True)
class _Written:
    step: int
    path: Path | None
    error: RunError | None = field(default=None)


def _write_moments(path: Path, moments: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({key: value.cpu().contiguous() for key, value in moments.items()}, path)


def _seal(path: Path) -> tuple[int, int]:
    """Has a file on the disk; its size and CRC-32."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size, _crc(path)


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _sync_events(folder: Path) -> None:
    """Has what the run told so far on the disk: a checkpoint outlives no event of the steps before it."""
    events = folder / "events.jsonl"
    if events.exists():
        with events.open("rb") as file:
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Has the names in `folder` on the disk (where the system can do that for folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
