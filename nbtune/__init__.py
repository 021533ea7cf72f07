"""nbtune: the fine-tuning workbench that lives in a notebook.

Importing this imports neither torch nor a front end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Before torch is imported: its threads spin for microseconds while they wait for each other, then sleep. Spinning for long, as is the
# default, takes the cores from a notebook's other threads and from whatever else runs; sleeping at once slows an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from nbtune import models
from nbtune.approaches import prompt
from nbtune.combine import combine
from nbtune.compare import Comparison, compare
from nbtune.doctor import doctor
from nbtune.errors import NbtuneError
from nbtune.estimate import estimate
from nbtune.instructions import instructions
from nbtune.launch.waiting import Queue, queue
from nbtune.overview import methods_on
from nbtune.retrieval import Index, index, indexes
from nbtune.run import Run, runs
from nbtune.run import open_run as open  # noqa: A004  the fixed interface: nbtune.open
from nbtune.start import finetune
from nbtune.task import Task

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Index",
    "NbtuneError",
    "Queue",
    "Run",
    "Task",
    "__version__",
    "combine",
    "compare",
    "doctor",
    "estimate",
    "finetune",
    "index",
    "indexes",
    "instructions",
    "methods_on",
    "models",
    "open",
    "prompt",
    "queue",
    "runs",
]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext nbtune`: hands over to the magics, which know IPython; the backend does not."""
    from nbtune_magics import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext nbtune`."""
    from nbtune_magics import unload_ipython_extension as unload

    unload(shell)


def __dir__() -> list[Any]:
    return list(__all__)
