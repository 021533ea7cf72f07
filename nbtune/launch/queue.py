"""The project's queue: who is at work on each device and who waits for it, in order. One file, shared by all processes.

.nbtune/queue.json is written whole or not at all, and changed only under .nbtune/queue.lock. It says the order alone: whether a run
lives is told by its own lock, so that what a killed process left here is in nobody's way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from nbtune.data.tables import write_whole
from nbtune.errors import RunError
from nbtune.store import RunFolder

__all__ = ["Entry", "QueueFile"]

_LOCK_SECONDS: Final = 10.0
_OVER: Final = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Entry:
    """One run's place. `device` is None until torch has told which is the best; `since` is when it came, in seconds since the epoch."""

    run: str
    device: str | None
    since: float
    running: bool = False

    def shares(self, other: Entry) -> bool:
        """Whether both need one device, as far as is known."""
        return self.device is None or other.device is None or self.device == other.device


class QueueFile:
    """The queue of one project's folder. Every look reads the file anew."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "queue.json"

    @classmethod
    def of(cls, folder: RunFolder) -> QueueFile:
        """The queue that a run's project has."""
        return cls(folder.path.parent.parent)

    def entries(self) -> list[Entry]:
        """All places in order, those of runs whose process is gone too."""
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            return [Entry(**{key: item[key] for key in ("run", "device", "since", "running")}) for item in said["entries"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            return []  # changed by hand: the order is lost, and each run still says itself whether it lives

    def folder(self, entry: Entry) -> RunFolder:
        """The run that has the place."""
        return RunFolder(self._home / "runs" / entry.run)

    def enter(self, run: str, device: str | None) -> None:
        """Puts a run at the end; its earlier place is given up.

        Raises:
            OSError: the queue cannot be written.
            RunError: another process does not let go of it.
        """
        self._change(lambda entries: [*_without(entries, run), Entry(run, device, time.time())])

    def leave(self, run: str) -> None:
        """Takes a run out.

        Raises:
            OSError, RunError: as `enter`.
        """
        self._change(lambda entries: _without(entries, run))

    def name_device(self, run: str, device: str) -> None:
        """Says which device a run waits for, once that is known.

        Raises:
            OSError, RunError: as `enter`.
        """
        self._change(lambda entries: [replace(entry, device=device) if entry.run == run else entry for entry in entries])

    def begin(self, run: str) -> tuple[str, ...]:
        """Gives the run its turn where nobody is before it; else the run ids that are, in order.

        Raises:
            OSError, RunError: as `enter`.
        """
        ahead: tuple[str, ...] = ()

        def first(entries: list[Entry]) -> list[Entry]:
            nonlocal ahead
            ahead = self.ahead(run, entries)
            return entries if ahead else [replace(entry, running=True) if entry.run == run else entry for entry in entries]

        self._change(first)
        return ahead

    def ahead(self, run: str, entries: Sequence[Entry] | None = None) -> tuple[str, ...]:
        """Living runs that have to end before this one begins, in order."""
        entries = self.entries() if entries is None else entries
        place = next((index for index, entry in enumerate(entries) if entry.run == run), len(entries))
        mine = entries[place] if place < len(entries) else Entry(run, None, 0.0)
        before = [entry for index, entry in enumerate(entries) if (index < place or entry.running) and entry.run != run]
        return tuple(entry.run for entry in before if entry.shares(mine) and self.folder(entry).is_owned())

    def move(self, run: str, position: int) -> None:
        """Gives a waiting run the place `position` (from 1) among those that wait for its device.

        Raises:
            RunError: it does not wait.
            OSError: as `enter`.
        """

        def moved(entries: list[Entry]) -> list[Entry]:
            mine = next((entry for entry in entries if entry.run == run and not entry.running), None)
            if mine is None:
                raise RunError(f"run {run} does not wait for a device", hint="nbtune.queue() shows who does")
            slots = [index for index, entry in enumerate(entries) if self._waits(entry) and entry.shares(mine)]
            order = [entries[index] for index in slots if entries[index].run != run]
            order.insert(position - 1, mine)
            for index, entry in zip(slots, order, strict=True):
                entries[index] = entry
            return entries

        self._change(moved)

    def _waits(self, entry: Entry) -> bool:
        return not entry.running and self.folder(entry).is_owned()

    def _change(self, change: Callable[[list[Entry]], list[Entry]]) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self._home / "queue.lock", thread_local=False)
        try:
            lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.01)
        except Timeout:
            raise RunError(
                f"the queue in {self._home} has been in use for {_LOCK_SECONDS:g} s",
                hint="another process that uses this folder hangs; end it",
            ) from None
        try:
            before = self.entries()
            after = [entry for entry in change(list(before)) if self._is_worth_keeping(entry)]
            if after != before:
                content = {"entries": [asdict(entry) for entry in after]}
                write_whole(self._path, (json.dumps(content, indent=1) + "\n").encode())
        finally:
            lock.release()

    def _is_worth_keeping(self, entry: Entry) -> bool:
        """A run that ended without leaving, or whose folder was deleted, has no place any more; an interrupted one can be resumed."""
        folder = self.folder(entry)
        return folder.is_owned() or (folder.path.is_dir() and folder.status() not in _OVER)


def _without(entries: list[Entry], run: str) -> list[Entry]:
    return [entry for entry in entries if entry.run != run]
