"""SIGTERM, which a server sends a kernel before it kills it: runs in threads are stopped with a checkpoint first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from nbtune.launch.thread import end_threads

__all__ = ["stop_on_sigterm"]

_ours: Any = None


def stop_on_sigterm() -> None:
    """Puts the stop before whatever SIGTERM does in this process; again where somebody has set a handler meanwhile.

    Only the main thread may set handlers: elsewhere this does nothing. So it does where SIGTERM is ignored, or handled outside Python,
    which could not be called on.
    """
    global _ours  # noqa: PLW0603  a process has one handler
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is None or before == signal.SIG_IGN or before is _ours:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        end_threads()
        if callable(before):
            before(number, frame)
        else:  # the default: to end, by this signal
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    _ours = handle
    signal.signal(signal.SIGTERM, handle)
