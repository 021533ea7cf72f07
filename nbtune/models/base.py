"""A base model in memory, the adapters on it, and the lease by which trainings and comparisons take turns.

Every forward on a base happens inside `Base.lease(...)`, which sets the active adapter and the mode first. Waiting is first come,
first served, so that a training that gives its lease up at each step boundary lets a comparison in, and the other way round.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from nbtune.errors import ModelError
from nbtune.models.attention import any_shape, rows_apart
from nbtune.models.chance import drawn_from
from nbtune.models.families import head, head_layers, is_seq2seq, one_text
from nbtune.models.injection import put_on_whole
from nbtune.models.lock import FairLock
from nbtune.models.low_rank import lean
from nbtune.models.quiet import quiet

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from nbtune.models.loading import LoadedModel

__all__ = ["MOST_COPIED", "Base", "Callback", "Trained"]

MOST_COPIED: Final = 512 * 2**20
"""What is trained and its optimizer are copied up to this size, to be written behind the loop; more would double the CPU's memory."""

PARTS_FILE = "trained.safetensors"
"""Where a method that trains parts of the base keeps them: {parameter name: tensor}."""


_FIXED: Final = "ranknum"
"""Numbers that peft keeps among an adapter's parameters and never trains (AdaLoRA's count of ranks)."""


class Callback(Protocol):
    """What an adapter wants done in each step of its training, beside the loss and the update."""

    def begin(self, total_steps: int) -> None:
        """Told before the first step of a session.

        Raises:
            SpecError: its options do not suit that many.
        """

    def penalty(self) -> torch.Tensor:
        """What is added to a step's loss (0-d)."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """After the update of `step`, from 1, the gradients still there. What has to be kept is put into the optimizer's state."""

    def summary(self) -> dict[str, Any]:
        """What it has to tell in the end."""


class Base:
    """One copy of a model. `peft` appears with the first adapter; adapters are named by run id.

    With `labels` its head is one over these classes: each adapter brings its own, and the base's own is zero. `heads` are the names of
    layers above the last block that each adapter brings: that head, or those of a model that fills in.
    """

    def __init__(self, loaded: LoadedModel, *, quantization: str | None = None) -> None:
        self.model: PreTrainedModel = loaded.model
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self.config: PretrainedConfig = loaded.config
        self.name = loaded.name
        self.quantization = quantization
        self.dtype: torch.dtype = loaded.model.dtype  # of what is neither quantized nor trained; all weights may be trained, in float32
        self.labels = loaded.labels
        self.learns = loaded.learns
        self.heads = _heads(loaded)
        self.peft: PeftModel | None = None
        self.callbacks: dict[str, Callback] = {}  # by adapter
        self.kind: str | None = None  # of the adapters on it, by peft's name; None: there are none
        self.held_for: str | None = None  # the kind that it was asked for as, with the options that all on it share; None: any
        self._lock = FairLock()
        self._as_loaded: torch.Tensor | None = None
        self._active: str | None = None  # of peft's adapters, where it is known; setting one walks through all modules
        self._training: bool | None = False  # the mode that all modules are in, where it is known
        self._leased = False

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.model.device

    @contextmanager
    def lease(self, adapter: str | None = None, *, training: bool = False, checkpointing: bool = False) -> Iterator[nn.Module]:
        """The model to run forwards on, alone, with `adapter` active (None: the base as it was loaded) and the mode set.

        What the lease before left is kept where it is what this one wants: to set adapter and mode takes as long as some layers do.
        In a base of 16 bits, float32 adapters and parts are multiplied in 16 bits under autocast. With `checkpointing` a training's
        blocks keep their input alone and are computed again in the backward, for this lease only.

        Raises:
            ModelError: who holds the model wants it a second time, as a `report` would that asks it something.
        """
        import torch

        with self._lock.held():
            outer = self._leased
            try:
                self._leased = True
                if outer:
                    message = f"{self.name!r} is asked by what is told how far it is with its answers"
                    raise ModelError(message, hint="let report and progress show what they are told, and ask the model when it is done")
                apart, shapes = rows_apart(self.model), any_shape(self.device)
                with self._switched(adapter) as model, apart, shapes, self._autocast(), torch.set_grad_enabled(training):
                    if training != self._training:
                        self._training = None  # an interrupt may come amid the modules
                        model.train(training)
                        self._training = training
                    if training and checkpointing:
                        _checkpoint(self.model, on=True)
                    try:
                        yield model
                    finally:
                        if training and checkpointing:
                            _checkpoint(self.model, on=False)
            finally:
                self._leased = outer

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Its adapters may be changed; nothing is known of adapter and mode afterwards but that the next probe wants no dropout."""
        with self._lock.held():
            try:
                yield
            finally:
                self._active = self._training = None
                self.model.eval()

    def add_adapter(self, name: str, config: PeftConfig, *, seed: int = 0) -> None:
        """Puts a new adapter on, its weights drawn from `seed`; whatever is trained beside keeps its own."""
        from peft import PeftModel

        with self._changing():
            with drawn_from(seed, self.device):
                config.task_type = "SEQ_2_SEQ_LM" if is_seq2seq(self.config) else config.task_type  # so peft opens the adapter again
                if self.heads:
                    self._with_heads(config)
                if self.peft is None:
                    self._as_loaded = None if self.device.type == "meta" else self._probe()
                with quiet(), put_on_whole(self.model, name):  # peft warns of tied embeddings wherever something is put on them
                    if self.peft is None:
                        self.peft = PeftModel(self.model, config, adapter_name=name)
                    else:
                        self.peft.add_adapter(name, config)
                self.kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
            lean(self.model)

    def _with_heads(self, config: Any) -> None:
        """Has peft give the adapter copies of these layers, and leave them alone otherwise."""
        names = list(self.heads)
        config.task_type, config.modules_to_save, config.exclude_modules = "TOKEN_CLS" if self.labels else None, names, names

    def begin_heads(self, name: str, seed: int) -> None:
        """Trains these layers with all else that is under `name`; a head over classes is drawn, as the model's own layers were."""
        import torch

        chance = torch.Generator().manual_seed(seed)
        spread = float(getattr(self.config, "initializer_range", 0.02))
        for key in self.heads:
            layer: Any = self.model.get_submodule(key)
            if self.has_adapter(name):
                layer = layer.modules_to_save[name]
            else:
                self.train_only([layer])
            for parameter in layer.parameters():
                parameter.data = parameter.data.float()
                if self.labels and parameter.ndim > 1 and parameter.device.type != "meta":
                    parameter.data.copy_(torch.empty(parameter.shape).normal_(0.0, spread, generator=chance))

    def drift(self) -> float:
        """Largest difference of the logits, adapters off, from those of the base before the first adapter was put on; 0.0: none."""
        if self._as_loaded is None:
            return 0.0
        with self.lease():
            now = self._probe()
        return float((now - self._as_loaded).abs().max())

    def remove_adapter(self, name: str) -> None:
        """Takes an adapter off for good; nothing happens where it is not there."""
        with self._changing():
            self.callbacks.pop(name, None)
            if self.peft is not None and name in self.peft.peft_config:
                others = [other for other in self.peft.peft_config if other != name]
                if others:
                    self.peft.set_adapter(others[-1])
                    self.peft.delete_adapter(name)
                else:
                    self.model = cast("PreTrainedModel", self.peft.unload())
                    self.peft = self.kind = self.held_for = None

    def has_adapter(self, name: str) -> bool:
        """Whether the adapter is on."""
        return self.peft is not None and name in self.peft.peft_config

    def adapter_config(self, name: str) -> PeftConfig:
        """The configuration of an adapter that is on, as peft keeps it."""
        return cast("PeftModel", self.peft).peft_config[name]

    def train_only(self, modules: Iterable[nn.Module]) -> None:
        """Makes the parameters of `modules` (and no others) trainable, as float32 master weights."""
        self.train_only_parameters(parameter for module in modules for parameter in module.parameters())

    def train_only_parameters(self, parameters: Iterable[nn.Parameter]) -> None:
        """Makes these parameters trainable, as float32 master weights."""
        for parameter in parameters:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def named(self, name: str) -> dict[str, nn.Parameter]:
        """The same as `trained`, by names that do not hold the run's own: what is written under them suits a fork, too."""
        return {f"{key}.".replace(f".{name}.", ".").removesuffix("."): value for key, value in self.trained(name).items()}

    def trained(self, name: str) -> dict[str, nn.Parameter]:
        """{name: parameter} of what is trained under the run id `name`: its adapter's weights, or the parts set free.

        A parameter that stands in two places (a tied head) is named once.
        """
        if self.has_adapter(name):
            mark, fixed = f".{name}.", f".{_FIXED}.{name}"
            return {key: value for key, value in self.model.named_parameters() if mark in f"{key}." and not key.endswith(fixed)}
        return {key: value for key, value in self.model.named_parameters() if value.requires_grad}

    def state(self, name: str) -> Trained:
        """What is trained under `name` as it is now: peft's state of its adapter, or the parts set free. The tensors are the live ones."""
        if not self.has_adapter(name):
            return Trained({key: value.detach() for key, value in self.trained(name).items()}, None)
        from peft import get_peft_model_state_dict

        from nbtune.models.offset import widened

        peft = cast("PeftModel", self.peft)
        state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
        return Trained(*widened(self.model, name, {key: value.detach() for key, value in state.items()}, self.adapter_config(name)))

    def restore(self, name: str, folder: Path) -> None:
        """Reads back what `Trained.write` wrote, into an adapter or parts that are already on."""
        import torch
        from safetensors.torch import load_file

        if self.has_adapter(name):
            from peft import set_peft_model_state_dict

            from nbtune.models.offset import narrowed

            state = narrowed(self.model, name, load_file(folder / "adapter_model.safetensors"))
            set_peft_model_state_dict(self.peft, state, adapter_name=name)
            return
        parts = self.trained(name)
        with torch.no_grad():
            for key, tensor in load_file(folder / PARTS_FILE).items():
                parts[key].copy_(tensor)

    def replace(self, name: str, tensors: Mapping[str, torch.Tensor], changes: Mapping[str, Any]) -> None:
        """Has an adapter of ours go on with these weights, by peft's names, and a changed configuration."""
        from peft import set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer

        with self._changing():
            peft = cast("PeftModel", self.peft)
            config = peft.peft_config[name]
            for key, value in changes.items():
                setattr(config, key, value)
            with quiet():
                layers: list[Any] = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
                for module in layers:
                    module.delete_adapter(name)
                    module.update_layer(name, config)
            set_peft_model_state_dict(peft, dict(tensors), adapter_name=name)

    def _probe(self) -> torch.Tensor:
        """Next-token logits after a few fixed tokens; nothing on the meta device, where there are no numbers."""
        import torch

        ids = torch.arange(8, device=self.device)[None] % int(self.config.vocab_size)
        with torch.no_grad(), self._autocast():
            return cast("torch.Tensor", self.model(**one_text(self.model, ids)).logits[0, -1].float().cpu())

    @contextmanager
    def _switched(self, adapter: str | None) -> Iterator[nn.Module]:
        if self.peft is None:
            yield self.model
            return
        if adapter is None:
            with self.adapters_off():
                yield self.model
            return
        if adapter != self._active:
            self._active = None  # an interrupt may come amid the layers
            self.peft.set_adapter(adapter)
            self._active = adapter
        yield self.model

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """Every adapter off, inside a lease. peft's own way asks each layer for its state before, which takes most of the time."""
        tuner: Any = cast("PeftModel", self.peft).base_model
        try:
            tuner.disable_adapter_layers()
            yield
        finally:
            tuner.enable_adapter_layers()

    def _autocast(self) -> Any:
        import torch

        mixed = self.dtype in (torch.bfloat16, torch.float16) and self.device.type in {"cpu", "cuda"}
        return torch.autocast(self.device.type, self.dtype) if mixed else nullcontext()


def _heads(loaded: LoadedModel) -> tuple[str, ...]:
    """Names of the layers that are new to a model, or that learn with whatever is trained below them."""
    if loaded.learns:
        return head_layers(loaded.model)
    if not loaded.labels:
        return ()
    layer = head(loaded.model)
    return (next(key for key, module in loaded.model.named_modules() if module is layer),)


def _checkpoint(model: Any, *, on: bool) -> None:
    """Under the name that this transformers has for it."""
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # the older name is gone in version 6
    if on:
        getattr(model, f"{kind}_checkpointing_enable")(**{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()


@dataclass(frozen=True)
class Trained:
    """What one run has trained: {name: tensor}, and the adapter's configuration where it is one."""

    tensors: dict[str, torch.Tensor]
    config: PeftConfig | None

    def copied(self) -> Trained:
        """The same in the CPU's memory, as it is now."""
        copies = {key: value.cpu() if value.device.type != "cpu" else value.clone() for key, value in self.tensors.items()}
        return Trained(copies, self.config)

    def write(self, folder: Path) -> None:
        """Writes it into `folder`: peft's own two files, or `trained.safetensors`."""
        from safetensors.torch import save_file

        plain = _apart({key: value.cpu().contiguous() for key, value in self.tensors.items()})
        if self.config is None:
            save_file(plain, folder / PARTS_FILE, metadata={"format": "pt"})
            return
        save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = copy.copy(self.config)
        config.inference_mode = True
        config.save_pretrained(str(folder))


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, those that lie where another does as copies: what two layers share (a tied head) peft names once for each."""
    seen: set[int] = set()
    found = {}
    for key, value in tensors.items():
        found[key] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return found
