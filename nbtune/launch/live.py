"""A run that this process trains: who listens to it, whether it is over, and what made it fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from nbtune.events import Event, Note
from nbtune.store import RunFolder

__all__ = ["Listener", "Live", "forget_live", "live_run"]

Listener = Callable[[Event], None]
_log = logging.getLogger("nbtune")
_runs: dict[str, Live] = {}


def live_run(run_id: str) -> Live | None:
    """The live side of a run that this process started; None for others'."""
    return _runs.get(run_id)


def forget_live(run_id: str) -> None:
    """From now on the run is another process's."""
    _runs.pop(run_id, None)


class Live:
    """Told of each event after it is on disk. A listener that raises is logged and never stops a training.

    `keeps`: the folder stays even if the run fails before it began, because others learn of it from there alone.
    """

    def __init__(self, folder: RunFolder, *, keeps: bool = False) -> None:
        self.folder = folder
        self.keeps = keeps
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._listeners: list[Listener] = []
        self._full = False
        _runs[folder.id] = self

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each event from now on, from the training's thread; what is returned ends that."""
        self._listeners.append(listener)

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    def emit(self, event: Event) -> None:
        """Appends the event to the folder, then tells the listeners. A full disk is told once, and stops nothing."""
        problem = ""
        try:
            self.folder.append(event)
            self._full = False
        except OSError as error:
            problem, self._full = ("" if self._full else str(error.strerror or error)), True
        self._tell(event)
        if problem:
            text = f"the run's events cannot be written ({problem}); they are kept in memory until there is room"
            self._tell(Note(level="warning", text=text))

    def _tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  whatever a listener raises is its own affair
                _log.exception("a listener of run %s failed", self.folder.id)
