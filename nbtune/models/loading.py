"""From a name to a model in memory: catalogue, local folder, hub id, or an object that the user holds."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from nbtune.errors import ModelError, did_you_mean
from nbtune.models.catalogue import CATALOGUE, folder_of
from nbtune.models.chance import drawn_from

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Learns",
    "LoadedModel",
    "Source",
    "answer_alike",
    "class_for",
    "clear_head",
    "load_weights",
    "refuse_encoder",
    "refuse_too_large",
    "source_of",
    "stored_dtype",
]

Learns = Literal["", "mlm", "mlm+nsp"]

_tokenizers: dict[str, PreTrainedTokenizerBase] = {}
"""Read once for the same files: a quarter of a second each."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with all that belongs to it; `name` is what it was asked for by."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PretrainedConfig
    name: str
    labels: tuple[str, ...] = ()
    learns: Learns = ""

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        where = f"{self.model.dtype}, {self.model.device}"
        return f"LoadedModel({self.name!r}, {type(self.model).__name__}, {count / 1e6:.1f} M parameters, {where})"


@dataclass(frozen=True, eq=False)
class Source:
    """Where a model comes from, told without opening anything: `name` for people, and a path, a hub id or an object.

    With `labels` the model is one with a new head over these classes in place of its own; with `learns` "mlm" an encoder that fills what
    is hidden, and with "mlm+nsp" one that tells which passage follows, too.
    """

    name: str
    path: str = ""
    local: bool = True
    bound: LoadedModel | None = None
    labels: tuple[str, ...] = ()
    learns: Learns = ""

    def to_learn(self, learns: Learns) -> Source:
        """The same model with the head that it needs to learn from whole texts."""
        return replace(self, learns=learns)

    def over(self, labels: tuple[str, ...]) -> Source:
        """The same model with a new head over `labels`.

        Raises:
            ModelError: it is bound as an object, whose head is its own.
        """
        if self.bound is not None:
            message = f"a new head needs the model's files, and {self.name!r} is bound as an object"
            raise ModelError(message, hint="give its folder or name")
        return replace(self, labels=labels)

    @cached_property
    def where(self) -> str:
        """What transformers opens; a catalogue model is written out at its first use.

        Raises:
            ModelError: its package is missing, or the disk is full.
        """
        return self.path or str(folder_of(self.name))

    @property
    def key(self) -> str:
        """Names the same weights in the cache of shared bases; a folder is known by its path and the time of its newest JSON file."""
        if self.bound is not None:
            return f"object:{id(self.bound.model)}"
        stamp = max((file.stat().st_mtime_ns for file in Path(self.where).glob("*.json")), default="") if self.local else ""
        return f"{self.where}@{stamp}" + (f"|{json.dumps(self.labels)}" if self.labels else "") + f"|{self.learns}" * bool(self.learns)

    @cached_property
    def config(self) -> PretrainedConfig:
        """The model's configuration; a few kilobytes."""
        if self.bound is not None:
            return self.bound.config
        from nbtune.models.shared import warm_up

        warm_up()
        from transformers import AutoConfig

        named = dict(enumerate(self.labels))
        more: dict[str, Any] = {"id2label": named, "label2id": {label: number for number, label in named.items()}} if named else {}
        return cast("PretrainedConfig", _asked(self, lambda options: AutoConfig.from_pretrained(self.where, **options, **more)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with a padding token."""
        if self.bound is not None:
            return self.bound.tokenizer
        if self.key not in _tokenizers:
            from transformers import AutoTokenizer

            tokenizer = _asked(self, lambda options: AutoTokenizer.from_pretrained(self.where, **options))
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            _tokenizers[self.key] = cast("PreTrainedTokenizerBase", tokenizer)
        return _tokenizers[self.key]


def source_of(model: Any) -> Source:
    """What `model` names: a catalogue name, an existing local folder, a hub id, or a bound model.

    Raises:
        ModelError: it is none of these, the folder has no config.json, or it cannot be read.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, LoadedModel):
        return Source(model.name, bound=model)
    if hasattr(model, "config") and hasattr(model, "forward"):
        return _bound(model)
    if not isinstance(model, str | Path) or not str(model).strip():
        message = f"a model is a name, a folder or a loaded model, not {type(model).__name__}: {model!r:.80}"
        raise ModelError(message, hint=f"the catalogue has {', '.join(CATALOGUE)}")
    name = str(model)
    if name in CATALOGUE:
        return Source(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(
                f"the folder {name!r} holds no model: config.json is missing", hint="name the folder that save_pretrained wrote"
            )
        return Source(name, str(folder.resolve()))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Source(name, name, local=False)
    hint = did_you_mean(name, CATALOGUE)
    raise ModelError(f"there is no model {name!r}: no catalogue name and no folder", hint=f"{hint} (or a hub id such as org/name)")


def load_weights(source: Source, *, dtype: torch.dtype, quantization: str | None, device: torch.device) -> LoadedModel:
    """A new model in memory, frozen and in eval mode. Weights are mapped from safetensors; no code of the model's own ever runs.

    Raises:
        ModelError: missing, damaged, gated or unreachable weights; too little memory.
    """
    from nbtune.models.device import give_back
    from nbtune.models.families import head
    from nbtune.models.quantization import config_for, keep_differentiable
    from nbtune.models.quiet import quiet

    if source.bound is not None:
        return _copy(source.bound, quantization, device)
    refuse_encoder(source)
    refuse_too_large(source, dtype, quantization, device)
    extra: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "low_cpu_mem_usage": True}
    if quantization is not None:
        extra |= {
            "quantization_config": config_for(quantization, dtype, new_head=bool(source.labels or source.learns)),
            "device_map": {"": str(device)},
        }
    with quiet(), drawn_from(0):  # what a file lacks of a model (ModernBERT's layer before the head) is the same at each loading
        kind = class_for(source)
        if source.labels:
            extra["config"] = copy.deepcopy(source.config)
        model = _asked(source, lambda options: kind.from_pretrained(source.where, **options, **extra))
        if source.labels:
            clear_head(model)
        if quantization is None:
            model.to(device)
        else:
            keep_differentiable(model)
            _let_go_of_file(model)
    model.eval().requires_grad_(False)
    give_back()
    # A slice of hidden states that is not contiguous makes a frozen bf16 head 50 times slower on the CPU.
    head(model).register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    answer_alike(model)
    return LoadedModel(model, source.tokenizer, model.config, source.name, source.labels, source.learns)


def stored_dtype(config: PretrainedConfig) -> torch.dtype | None:
    """What the weights are written as, by the model's configuration; None: it does not say."""
    import torch

    stored = getattr(config, "dtype", None)
    stored = getattr(torch, stored.removeprefix("torch."), None) if isinstance(stored, str) else stored
    return stored if isinstance(stored, torch.dtype) else None


def class_for(source: Source) -> Any:
    """Which of transformers' classes the model is opened as: one that writes, that fills in, or one with a head over classes."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForPreTraining,
        AutoModelForSeq2SeqLM,
        AutoModelForTokenClassification,
    )

    from nbtune.models.families import is_seq2seq

    if source.learns:
        return AutoModelForMaskedLM if source.learns == "mlm" else AutoModelForPreTraining
    if source.labels:
        return AutoModelForTokenClassification
    return AutoModelForSeq2SeqLM if is_seq2seq(source.config) else AutoModelForCausalLM


def answer_alike(model: PreTrainedModel) -> None:
    """Where a model's logits over the vocabulary have another name (BERT as it was pretrained), they get the usual one, too."""
    if hasattr(model, "cls") and hasattr(model.cls, "seq_relationship"):
        model.register_forward_hook(lambda _model, _args, out: out.__setitem__("logits", out["prediction_logits"]))


def clear_head(model: PreTrainedModel) -> None:
    """Sets a new head to zero: as transformers makes it, it is drawn at random, another one at each time."""
    from nbtune.models.families import head

    for parameter in head(model).parameters():
        parameter.data.zero_()


def _let_go_of_file(model: PreTrainedModel) -> None:
    """Copies the weights that were not quantized: while one of them lies in the mapped file, all pages read of it stay in memory."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _bound(model: Any) -> Source:
    from transformers import AutoTokenizer

    name = getattr(model.config, "name_or_path", "") or ""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        message = f"no tokenizer was found for the bound {type(model).__name__} (name_or_path {name!r})"
        raise ModelError(message, hint="bind nbtune.models.load(...), which carries its tokenizer") from error
    return Source(name, bound=LoadedModel(model, tokenizer, model.config, name))


def _copy(bound: LoadedModel, quantization: str | None, device: torch.device) -> LoadedModel:
    """A copy to work on, on the device that is asked for: the user's object stays as it was found."""
    from nbtune.models.quantization import held_as, keep_differentiable

    if quantization is not None:
        message = f"quantization {quantization!r} needs a model's files, and {bound.name!r} is bound as an object"
        raise ModelError(message, hint="give its folder or name, or quantize it yourself before binding it")
    model: Any = copy.deepcopy(bound.model).eval().requires_grad_(False)
    if held_as(model) is not None:
        keep_differentiable(model)
    elif getattr(model, "hf_device_map", None) is None:
        model.to(device)
    return LoadedModel(model, bound.tokenizer, model.config, bound.name)


def _asked(source: Source, load: Any) -> Any:
    """Runs one of transformers' from_pretrained and turns what it raises into an error that says what to do."""
    from safetensors import SafetensorError

    options = {"trust_remote_code": False, "local_files_only": source.local}
    try:
        return load(options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _explained(source, error) from error


def _explained(source: Source, error: Exception) -> ModelError:
    text = str(error)
    low = text.lower()
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:200]
    if "gated" in low or "401" in low or "403" in low:
        return ModelError(f"model {source.name!r} is gated or private", hint="accept its licence on the hub, then log in: hf auth login")
    if "trust_remote_code" in low or "custom code" in low:
        return ModelError(
            f"model {source.name!r} needs code of its own to run", hint="nbtune never runs it; choose a model that transformers knows"
        )
    if "safetensors" in low and ("no file named" in low or "does not appear to have" in low):
        return ModelError(
            f"model {source.name!r} has no weights as safetensors", hint="nbtune reads no pickled weights; convert them first"
        )
    if "incomplete" in low or "safetensor" in low or "header" in low or "eof" in low:
        return ModelError(
            f"the weights of {source.name!r} are damaged, or their download was interrupted: {first}",
            hint="delete the folder and write or download it again" if source.local else f"run: hf download {source.name} --force-download",
        )
    if not source.local and any(
        word in low for word in ("connect", "offline", "internet", "resolve", "network", "timed out", "proxy", "huggingface.co")
    ):
        return ModelError(
            f"model {source.name!r} is not on this machine, and the hub cannot be reached",
            hint=f"check the name and the network, or use a local folder or {', '.join(CATALOGUE)}",
        )
    if not source.local and ("not a valid model identifier" in low or "404" in low or "not found" in low):
        return ModelError(f"the hub has no model {source.name!r}", hint="check the spelling: org/name")
    return ModelError(f"model {source.name!r} could not be loaded: {first}", hint="check the folder or the name")


def refuse_encoder(source: Source) -> None:
    """Refuses a model that reads in both directions where it is to write: transformers would give it a head that was never trained.

    Raises:
        ModelError: it is an encoder.
    """
    from nbtune.models.families import is_encoder

    if source.labels or source.learns:
        return
    entry = CATALOGUE.get(source.name)
    if (entry is not None and entry.role == "encoder") or is_encoder(source.config):
        message = f"model {source.name!r} is an encoder: it reads text and does not write it"
        decoder = next(name for name, item in CATALOGUE.items() if item.role == "decoder")
        raise ModelError(message, hint=f"use {decoder!r}, or an objective that reads: classification, pairs, regression, tagging, mlm")


def refuse_too_large(source: Source, dtype: torch.dtype, quantization: str | None, device: torch.device) -> None:
    """Refuses weights that alone are more than the memory that is free.

    Raises:
        ModelError: with what would help.
    """
    from nbtune.models.device import available_bytes

    need = _stored_bytes(source, dtype, quantization)
    free = available_bytes(device)
    if need > free:
        message = (
            f"model {source.name!r} needs about {need / 1e9:.1f} GB as {quantization or dtype}, and {device} has {free / 1e9:.1f} GB free"
        )
        smaller = "" if quantization else "quantization nf4 (about a quarter), "
        raise ModelError(message, hint=f"use {smaller}a smaller model, or nbtune.models.unload() what you no longer need")


def _stored_bytes(source: Source, dtype: torch.dtype, quantization: str | None) -> int:
    """Bytes of the weights in memory, counted from the config alone (0 where transformers cannot build it)."""
    import torch

    from nbtune.models.skeleton import skeleton

    try:
        count = sum(parameter.numel() for parameter in skeleton(source).parameters())
    except (ModelError, ValueError, RuntimeError, json.JSONDecodeError):
        return 0
    width = {None: float(torch.empty(0, dtype=dtype).element_size()), "int8": 1.1, "nf4": 0.6, "fp4": 0.6}[quantization]
    return int(count * width)
