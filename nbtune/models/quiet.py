"""Silences what libraries print while they are imported or load a model: none of it is for a notebook's user."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["quiet", "silence", "silence_imports"]

_CHATTY: Final = (
    "bitsandbytes.backends.cpu.ops",  # "4-bit matmul ... falls back", at import
    "bitsandbytes.autograd._functions",  # "MatMul8bitLt: inputs will be cast", at every step
    "bitsandbytes.cextension",
    "huggingface_hub.utils._http",  # each retry of a hub that cannot be reached
)


def silence_imports() -> None:
    """For the life of the process: what speaks at import or at every step; imports nothing itself."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft asks transformers for it
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def silence() -> None:
    """The same, and transformers' progress bars, which would leave malformed `metadata.widgets` in a saved notebook."""
    silence_imports()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """While a model loads: transformers speaks only of errors, and its warnings are not shown."""
    silence()
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
