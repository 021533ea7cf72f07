"""TRL's SFTTrainer and HF's Trainer on the same rows: same base in the same precision, same rank, same rows to a step, a fresh model each."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import Any

from engine_parts.loops import Epoch
from engine_parts.machine import device, finish
from engine_parts.rows import MODEL, tokens

BATCH = 8
TRL = {
    "TRL defaults": {},
    "TRL, no checkpointing": {"gradient_checkpointing": False},
    "TRL, no checkpointing, grouped by length": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "TRL, no checkpointing, padding-free": {"gradient_checkpointing": False, "padding_free": True, "max_length": None},
    "TRL, no checkpointing, packing": {"gradient_checkpointing": False, "packing": True, "per_device_train_batch_size": 1},
}
"""All but the first are candidates for its best. Packed, a sequence is as long as `BATCH` rows on average, so that about as many make a step."""


def _fresh() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from nbtune.models.device import best_device, best_dtype
    from nbtune.models.loading import source_of

    source = source_of(MODEL)
    model = AutoModelForCausalLM.from_pretrained(source.where, dtype=best_dtype(best_device()))
    return model.to(torch.device(device())), source.tokenizer


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def _second_epoch(now: Callable[[], float], seen: list[float]) -> Any:
    from transformers import TrainerCallback

    class Marks(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            finish()
            seen.append(now())

    return Marks()


def _options(folder: str) -> dict[str, Any]:
    """What is not a matter of speed is set as our defaults have it; evaluation and checkpoints are off."""
    return {
        "output_dir": folder,
        "num_train_epochs": 2,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "seed": 0,
    }


def _trained(trainer: Any, seen: list[float]) -> Epoch:
    outcome = trainer.train()
    return Epoch(seen[1] - seen[0], outcome.training_loss, trainer.state.global_step // 2)


def trl_run(rows: list[dict[str, str]], now: Callable[[], float], **options: Any) -> Epoch:
    """SFTTrainer on prompt and completion, its loss on the completion alone (its default for such rows)."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    _quiet()
    model, tokenizer = _fresh()
    seen: list[float] = []  # the end of each epoch: the second less the first
    with tempfile.TemporaryDirectory() as folder:
        if options.get("packing"):
            options["max_length"] = round(BATCH * tokens(rows))
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**{**_options(folder), **options}),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_lora(),
            callbacks=[_second_epoch(now, seen)],
        )
        return _trained(trainer, seen)


def hf_run(rows: list[dict[str, str]], now: Callable[[], float]) -> Epoch:
    """HF's Trainer, labels masked by hand, padded by its own collator; mixed precision as TRL sets it."""
    import torch
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    _quiet()
    model, tokenizer = _fresh()
    mixed = model.dtype == torch.bfloat16

    def encoded(row: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "attention_mask": [1] * len(prompt + answer), "labels": [-100] * len(prompt) + answer}

    seen: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=get_peft_model(model, _lora()),
            args=TrainingArguments(**_options(folder), bf16=mixed, logging_steps=10),
            train_dataset=Dataset.from_list([encoded(row) for row in rows]),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
            callbacks=[_second_epoch(now, seen)],
        )
        return _trained(trainer, seen)


def _quiet() -> None:
    import warnings

    import datasets

    warnings.filterwarnings("ignore")
    datasets.disable_progress_bars()
    for name in ("trl", "transformers", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
