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
MODULES: Final = (
    *("nbtune_widgets._live", "nbtune_widgets.panel", "pandas", "pyarrow.parquet"),
    *("torch", "torch._dynamo", "bitsandbytes", "accelerate", "scipy.stats", "sklearn.metrics"),
)
"""What a first cell shows itself with and keeps its rows with; then what the libraries that train are built on.

Not transformers: while one thread imports it, an `import` of the user's own in another finds it half made and fails.
"""

_threads: list[threading.Thread] = []


def warm_up() -> None:
    """Starts those imports in a daemon thread, once; it prints nothing and fails silently.

    What fails here fails again, with its reason, where it is needed.
    """
    if not _threads:
        _threads.append(threading.Thread(target=_import, name="nbtune-warm-up", daemon=True))
        _threads[0].start()


def warmed() -> None:
    """Waits until the imports are done."""
    for thread in _threads:
        thread.join()


def _import() -> None:
    from nbtune.models.quiet import silence_imports

    time.sleep(REPLY_FIRST)
    silence_imports()
    for module in MODULES:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
