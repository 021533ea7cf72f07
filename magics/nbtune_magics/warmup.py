"""Imports what training needs behind the notebook's back, so that the first `%%finetune` finds it there."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
import threading
from typing import Any, Final

__all__ = ["warm_up", "warmed"]

REPLY_FIRST: Final = 0.25
"""Seconds before the imports begin: they hold the interpreter, and the cell that loads us should be seen to end."""
MODULES: Final = (
    *("nbtune_widgets._live", "nbtune_widgets.panel", "pandas", "pyarrow.parquet"),
    *("torch", "torch._dynamo", "bitsandbytes", "accelerate", "scipy.stats", "sklearn.metrics"),
)
"""What a first cell shows itself with and keeps its rows with; then what the libraries that train are built on.

Not transformers: it imports its parts when they are asked for, past `_others_wait`, and whoever asks meanwhile finds them half made.
"""
_PACKAGES: Final = frozenset(module.partition(".")[0] for module in MODULES)
_LONGEST_WAIT: Final = 60.0

_threads: list[threading.Thread] = []
_wanted = threading.Event()
_done = threading.Event()


def warm_up() -> None:
    """Starts those imports in a daemon thread, once; it prints nothing and fails silently.

    What fails here fails again, with its reason, where it is needed.
    """
    if not _threads:
        _threads.append(threading.Thread(target=_import, args=(builtins.__import__,), name="nbtune-warm-up", daemon=True))
        builtins.__import__ = _waiting_import(builtins.__import__, _threads[0])
        _threads[0].start()


def warmed() -> None:
    """Waits until the imports are done."""
    for thread in _threads:
        thread.join()


def _import(plain: Any) -> None:
    from nbtune.models.quiet import silence_imports

    ours = builtins.__import__
    try:
        _wanted.wait(REPLY_FIRST)
        silence_imports()
        for module in MODULES:
            with contextlib.suppress(Exception):
                importlib.import_module(module)
    finally:
        _done.set()
        if builtins.__import__ is ours:
            builtins.__import__ = plain


def _waiting_import(plain: Any, ours: threading.Thread) -> Any:
    """`plain`, but that other threads wait with these packages until `ours` has them whole.

    Where one thread imports a package while another imports a module of it, each soon waits for what the other is making. Python sees
    that and lets one of the two fail.
    """

    def waiting(name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        told = level == 0 and name.partition(".")[0] in _PACKAGES and threading.current_thread() is not ours
        if told and not _done.is_set() and not _is_whole(name):
            _wanted.set()
            _done.wait(_LONGEST_WAIT)
        return plain(name, globals_, locals_, fromlist, level)

    return waiting


def _is_whole(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)
