"""`nbtune.queue()`: the project's queue as a person sees and changes it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from nbtune.errors import RunError
from nbtune.launch.queue import Entry, QueueFile
from nbtune.run import Run
from nbtune.store import RunFolder, find_run, home

__all__ = ["Queue", "queue"]

_HEADS: Final = ("place", "run", "device", "status", "id")
_OVER: Final = ("finished", "stopped", "failed")


class Queue:
    """The runs that are at work on a device or wait for it, in order; each look is a new one.

    Interrupted runs, whose process is gone, come last and are in nobody's way: they can be resumed.
    """

    def __iter__(self) -> Iterator[Run]:
        return (Run(folder) for _, folder in self._places())

    def __len__(self) -> int:
        return len(self._places())

    def __getitem__(self, index: int) -> Run:
        return list(self)[index]

    def move(self, run: Run | str, position: int) -> None:
        """Gives a run that waits the place `position`, from 1, among those that wait for the same device.

        Raises:
            RunError: there is no such run, it does not wait, or position is less than 1.
        """
        if position < 1:
            raise RunError(f"the place in a queue is 1 or more, not {position}", hint="1 is next")
        folder = _folder(run)
        if folder.status() == "interrupted":
            raise RunError(f"run {folder.name} does not wait: its process is gone", hint="resume it: it then waits at the end")
        QueueFile(home()).move(folder.id, position)

    def cancel(self, run: Run | str) -> None:
        """Takes a run that waits out: it ends as stopped. One that was interrupted loses its place alone.

        Raises:
            RunError: there is no such run, or it does not wait.
        """
        folder = _folder(run)
        entry = next((entry for entry in QueueFile(home()).entries() if entry.run == folder.id), None)
        if entry is None or (entry.running and folder.is_owned()):
            hint = "stop it: run.stop()" if entry is not None else "nbtune.queue() shows who does"
            raise RunError(f"run {folder.name} does not wait: it is {folder.status()}", hint=hint)
        if folder.is_owned():
            folder.control("stop")
        else:
            QueueFile(home()).leave(folder.id)

    def __repr__(self) -> str:
        rows = self._rows()
        if not rows:
            return "Queue(nothing is at work or waits)"
        grid = [_HEADS, *rows]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in grid)

    def _repr_html_(self) -> str:
        rows = self._rows()
        if not rows:
            return "<p>nothing is at work or waits</p>"
        head = "".join(f'<th scope="col" style="text-align:left">{name}</th>' for name in _HEADS)
        body = "".join("<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _places(self) -> list[tuple[Entry, RunFolder]]:
        """At work, then waiting, then interrupted."""
        file = QueueFile(home())
        found = [(entry, folder) for entry in file.entries() if (folder := file.folder(entry)).path.is_dir()]
        known = [(entry, folder, folder.status()) for entry, folder in found]
        living = [item for item in known if item[2] not in _OVER]
        living.sort(key=lambda item: (item[2] == "interrupted", not item[0].running))
        return [(entry, folder) for entry, folder, _ in living]

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        waiting: dict[str | None, int] = {}
        for entry, folder in self._places():
            status = folder.status()
            place = ""
            if status != "interrupted" and not entry.running:
                waiting[entry.device] = waiting.get(entry.device, 0) + 1
                place = str(waiting[entry.device])
            rows.append((place, folder.name, entry.device or "", status, folder.id))
        return rows


def queue() -> Queue:
    """Who is at work on each device, and who waits for it: `for run in nbtune.queue()`, `.move(run, 1)`, `.cancel(run)`."""
    return Queue()


def _folder(run: Run | str) -> RunFolder:
    return find_run(run.id if isinstance(run, Run) else run)
