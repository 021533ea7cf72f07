"""Listening to a run that another process trains: by reading what it adds to its events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from nbtune.launch.live import Listener
from nbtune.store import RunFolder

__all__ = ["follow"]

LOOK_SECONDS: Final = 0.1
_OVER: Final = ("finished", "stopped", "failed", "interrupted")
_log = logging.getLogger("nbtune")


def follow(folder: RunFolder, listener: Listener) -> Callable[[], None]:
    """Calls `listener` with each event from now on, once and in order, from a thread that ends with the run; what is returned ends that.

    A listener that raises is logged and goes on hearing.
    """
    own = RunFolder(folder.path)  # reads at its own pace
    heard = len(own.events())
    done = threading.Event()
    if own.status() not in _OVER:
        thread = threading.Thread(target=_follow, args=(own, heard, listener, done), name=f"nbtune-follow-{own.id}", daemon=True)
        thread.start()
    return done.set


def _follow(folder: RunFolder, heard: int, listener: Listener, done: threading.Event) -> None:
    over = False
    while not over and not done.wait(LOOK_SECONDS):
        over = folder.status() in _OVER  # before the events are read: what it told last is among them
        events = folder.events()
        for event in events[heard:]:
            if done.is_set():
                return
            try:
                listener(event)
            except Exception:  # noqa: BLE001  whatever a listener raises is its own affair
                _log.exception("a listener of run %s failed", folder.id)
        heard = len(events)
