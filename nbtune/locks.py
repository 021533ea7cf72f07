"""A lock on a file that says who owns a run: held until it is released, or until all processes that hold it have ended, however they do.

Written on flock itself because a child process is born with it (see `nbtune.launch.process`): a library's lock would be let go, for the
child too, when its parent ends.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

__all__ = ["Lock", "is_held", "take"]

_held: set[Lock] = set()


class Lock:
    """A hold on a file; `descriptor` is its open file, which a child may inherit: both then hold it, and either's release frees it."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Frees the file."""
        _held.discard(self)
        _unlock(self.descriptor)
        os.close(self.descriptor)


def take(path: Path, seconds: float) -> Lock | None:
    """The lock, or None where somebody has held it for so many seconds.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    end = time.monotonic() + seconds
    while not _locked(descriptor):
        if time.monotonic() > end:
            os.close(descriptor)
            return None
        time.sleep(0.01)
    return Lock(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds the file. Several may ask at once: no one takes another's question for a hold."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor, shared=True)
    finally:
        os.close(descriptor)  # which lets go of it


def _locked(descriptor: int, *, shared: bool = False) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _forget() -> None:
    """In a forked copy of this process, such as a data loader's worker: it owns nothing, and must not seem to when its parent is gone."""
    for lock in _held:
        os.close(lock.descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
