"""The magics: `%%task %%instructions %doctor %methods %%finetune %%prompt %%compare %tune %strength %runs`.

Each parses, calls the backend and returns.

`%load_ext nbtune` loads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Registers the magics, their completion and the cell transformers; torch is imported behind it."""
    from nbtune_magics.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Takes all of it out again."""
    from nbtune_magics.extension import unload

    unload(shell)
