"""The run folder: the one place where a run's spec, events, controls and checkpoints are. Everything else reads it.

.nbtune/runs/<run_id>/  spec.json environment.json task.json data.parquet events.jsonl control.jsonl run.lock checkpoints/
A process of its own (launch: process) writes what it prints to process.log.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

from nbtune.errors import RunError, did_you_mean
from nbtune.events import Control, Event, parse_event
from nbtune.locks import Lock, is_held, take

__all__ = ["RunFolder", "Status", "check_name", "find_run", "home", "in_order", "run_folders"]

Status = Literal["queued", "running", "paused", "finished", "stopped", "failed", "interrupted"]
_ENDS: Final = ("finished", "stopped", "failed")
_STATUS: Final = {
    **{end: end for end in _ENDS},
    "queued": "queued",
    "pause": "paused",
    **dict.fromkeys(("phase", "started", "resumed", "step", "resume"), "running"),
}
"""{an event's type or a control's action: the status after it}."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def home() -> Path:
    """The project's folder: `NBTUNE_HOME`, else `.nbtune` beside the notebook (the working folder)."""
    return Path(os.environ.get("NBTUNE_HOME") or ".nbtune").expanduser().absolute()


def run_folders() -> list[RunFolder]:
    """Every run of the project, the oldest first."""
    root = home() / "runs"
    if not root.is_dir():
        return []
    return [RunFolder(path) for path in sorted(root.iterdir()) if (path / "spec.json").exists()]


_NO_RUNS: Final = (
    (
        "adapter_config.json",
        "an adapter that was saved from one",
        "name the run itself, which nbtune.runs() lists; in other programs peft opens it: PeftModel.from_pretrained(model, folder)",
    ),
    (
        "trained.safetensors",
        "weights that were saved from one",
        "name the run itself, which nbtune.runs() lists; or save it with merge=True",
    ),
    ("config.json", "a model", "give it as model: to finetune, prompt or compare"),
)
"""Folders that are easily taken for a run's: (a file in it, what it is, what to do)."""


def find_run(word: str | Path) -> RunFolder:
    """The run of that id, folder, or name (the newest of that name).

    Raises:
        RunError: there is none.
    """
    path = Path(word)
    if (path / "spec.json").exists():
        return RunFolder(path.absolute())
    folders = run_folders()
    for folder in reversed(folders):
        if str(word) in (folder.id, _name_of(folder)):
            return folder
    for file, what, hint in _NO_RUNS:
        if (path / file).exists():
            raise RunError(f"{str(word)!r} is no run but {what}", hint=hint)
    known = [name for folder in folders if (name := _name_of(folder))]
    raise RunError(f"there is no run {str(word)!r} in {home()}", hint=did_you_mean(str(word), known))


class RunFolder:
    """One run on disk. Any process may read it; the one that holds `run.lock` writes its events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self._guard = threading.Lock()
        self._events: list[Event] = []
        self._offset = 0
        self._unwritten = b""
        self._lock: Lock | None = None
        self._spec: dict[str, Any] | None = None

    @classmethod
    def create(cls, name: str, spec: dict[str, Any]) -> RunFolder:
        """A new folder, its lock held by this process.

        Raises:
            RunError: the name is none, or the folder cannot be written.
        """
        check_name(name)
        root = home() / "runs"
        now = time.time()  # to the millisecond, so that ids sort as runs were started
        stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}{int(now % 1 * 1000):03d}"
        run_id = f"{stamp}-{name}-{secrets.token_hex(2)}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            ignore = home() / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            folder = cls(root / run_id)
            folder.path.mkdir()
            folder.take()
            folder.write_json("spec.json", {"id": run_id, "name": name, **spec})
        except OSError as error:
            message = f"the run's folder cannot be written in {root}: {error.strerror or error}"
            raise RunError(message, hint="free some disk space, or set NBTUNE_HOME to a folder that can be written") from error
        return folder

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for, flat, with `method`, `id` and `name`."""
        if self._spec is None:
            self._spec = self.read_json("spec.json")
        return dict(self._spec)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.spec["name"])

    def read_json(self, file: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            return cast("dict[str, Any]", json.loads((self.path / file).read_text()))
        except (OSError, ValueError) as error:
            message = f"run {self.id} cannot be read: {file}: {error}"
            raise RunError(message, hint=f"delete the folder {self.path} if the run is not needed") from error

    def write_json(self, file: str, value: dict[str, Any]) -> None:
        """Writes a JSON file whole or not at all, on the disk before it has its name."""
        part = self.path / f".{file}.part"
        with part.open("w") as opened:
            opened.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(self.path / file)

    def append(self, event: Event) -> None:
        """Appends an event; on disk before anybody is told.

        Raises:
            OSError: the disk is full. The event is kept, known to this process, and written with the next one that can be.
        """
        with self._guard:
            self._unwritten += (event.to_json() + "\n").encode()
            self._write_events()

    def _write_events(self) -> None:
        _append(self.path / "events.jsonl", self._unwritten)
        self._unwritten = b""

    def events(self) -> list[Event]:
        """All events so far; only what is new is read. A line torn by a power loss is left out."""
        with self._guard:
            path = self.path / "events.jsonl"
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                self._offset += len(whole)
                self._events.extend(_parsed(whole))
            return [*self._events, *_parsed(self._unwritten)]

    def control(self, action: str, **values: Any) -> None:
        """Asks the loop for something; it looks at each step boundary, in whatever process it runs.

        Raises:
            RunError: the disk is full or cannot be written.
        """
        line = json.dumps({"time": time.time(), "action": action, **values})
        try:
            _append(self.path / "control.jsonl", (line + "\n").encode())
        except OSError as error:
            message = f"run {self.id} cannot be asked to {action}: {error.strerror or error}"
            raise RunError(message, hint=f"free some disk space under {self.path}") from error

    def take(self) -> None:
        """Makes this process the run's owner.

        Raises:
            RunError: another process owns it.
        """
        lock = take(self.path / "run.lock", 0.3)  # who asks whether there is an owner is in the way for a moment
        if lock is None:
            message = f"run {self.id} is in use by another process"
            raise RunError(message, hint="stop it there first, or watch it from here with nbtune.open")
        self._lock = lock

    def release(self) -> None:
        """Gives the ownership up."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def hand_over(self) -> Lock | None:
        """The lock that this object held so far, for `nbtune.launch.process`, which lets a child hold it too."""
        lock, self._lock = self._lock, None
        return lock

    def adopt(self, descriptor: int) -> None:
        """Makes this process the owner by a lock that it was born with."""
        self._lock = Lock(descriptor)

    def is_owned(self) -> bool:
        """Whether a living process owns the run."""
        return self._lock is not None or is_held(self.path / "run.lock")

    def status(self) -> Status:
        """Told from the events, and from whether the owner lives."""
        owned = self.is_owned()  # asked first: an owner tells the end before it goes
        known = next((status for event in reversed(self.events()) if (status := _status_after(event)) is not None), None)
        if known in _ENDS:
            return cast("Status", known)
        return (known or "queued") if owned else "interrupted"

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, the oldest first."""
        root = self.path / "checkpoints"
        return [path for path in in_order(root.glob("step-*")) if (path / "state.json").exists()]

    def discard(self) -> None:
        """Removes the folder of a run that never began; this object remembers its events."""
        self._spec = self.spec
        self.events()
        self.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"


def check_name(name: str) -> str:
    """The name, if it can be a file's and a variable's.

    Raises:
        RunError: it cannot.
    """
    if not _NAME.fullmatch(name):
        message = f"{name!r} cannot be a name"
        raise RunError(message, hint="use up to 64 letters, digits, _ and -, beginning with a letter or digit")
    return name


def in_order(checkpoints: Iterable[Path]) -> list[Path]:
    """Folders of checkpoints by their step, which from a million on has more digits than the others' names."""
    return sorted(checkpoints, key=lambda path: (len(path.name), path.name))


def _name_of(folder: RunFolder) -> str | None:
    """A run's name; None where its spec is damaged, which must not hide the other runs."""
    try:
        return folder.name
    except RunError:
        return None


def _status_after(event: Event) -> Status | None:
    """The status that a run has after `event`; None where it says nothing about that."""
    kind = event.action if isinstance(event, Control) else event.type
    return cast("Status | None", _STATUS.get(kind))


def _append(path: Path, lines: bytes) -> None:
    """Appends whole lines, none of them to a line that was torn before."""
    torn = not _ends_whole(path)
    with path.open("ab") as file:
        file.write((b"\n" if torn else b"") + lines)


def _ends_whole(path: Path) -> bool:
    """Whether a file's last line ends; it does not after a power loss or on a disk that was full."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _parsed(data: bytes) -> Iterator[Event]:
    for line in data.decode("utf-8", errors="replace").split("\n"):  # not splitlines: a sample's text may hold other ends of lines
        try:
            yield parse_event(line)
        except ValueError:
            continue  # torn by a power loss, or written by a newer version
