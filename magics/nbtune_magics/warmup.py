"""Imports what training needs behind the notebook's back, so that the first `%%finetune` finds it there."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from typing import Final

__all__ = ["warm_up", "warmed"]

REPLY_FIRST: Final = 0.25
"""Seconds before the imports begin: they hold the interpreter, and the cell that loads us should be seen to end."""

FIRST: Final = ("nbtune_widgets._live", "nbtune_widgets.panel", "pandas", "pyarrow.parquet")
"""What a first cell shows itself with and keeps its rows with; then what trains."""

_threads: list[threading.Thread] = []


def warm_up() -> None:
    """Starts the imports of torch, transformers and peft in a daemon thread, once; it prints nothing and fails silently.

    What fails here fails again, with its reason, where it is needed.
    """
    if not _threads:
        _threads.append(threading.Thread(target=_import, name="nbtune-warm-up", daemon=True))
        _threads[0].start()


def warmed() -> None:
    """Waits until the imports are done: transformers imported by two threads at once can be seen half made (cyclic imports)."""
    for thread in _threads:
        thread.join()


def _import() -> None:
    time.sleep(REPLY_FIRST)
    with contextlib.suppress(Exception):
        for module in FIRST:
            importlib.import_module(module)
        from nbtune import models

        models.warm_up()
