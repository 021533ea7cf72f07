"""What plain transformers say, one text at a time: nothing shared, nothing batched, none of nbtune."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["ended", "label_scores", "shots_before", "written"]


def _plain(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def label_scores(folder: Path, texts: Sequence[str], answers: Sequence[str]) -> list[list[list[float]]]:
    """Log-probabilities of each token of each answer after each text [texts][answers][tokens]."""
    model, tokenizer = _plain(folder)
    found = []
    for text in texts:
        row = []
        for answer in answers:
            before = tokenizer(text)["input_ids"]
            after = tokenizer(text + answer)["input_ids"][len(before) :]
            with torch.no_grad():
                logp = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
            row.append([float(logp[len(before) - 1 + place, token]) for place, token in enumerate(after)])
        found.append(row)
    return found


def ended(folder: Path, texts: Sequence[str], answers: Sequence[str]) -> list[list[float]]:
    """The log-probability that each answer after each text ends there, by an end of sequence or a new line [texts][answers]."""
    model, tokenizer = _plain(folder)
    breaks = [token for token in range(len(tokenizer)) if tokenizer.decode([token])[:1] in ("\n", "\r")]
    found = []
    for text in texts:
        row = []
        for answer in answers:
            with torch.no_grad():
                p = model(torch.tensor([tokenizer(text + answer)["input_ids"]])).logits[0, -1].softmax(-1)
            row.append(float(p[[tokenizer.eos_token_id, *breaks]].sum().log()))
        found.append(row)
    return found


def written(folder: Path, texts: Sequence[str], max_new_tokens: int) -> list[str]:
    """The greedy continuation of each text, outer spaces dropped."""
    model, tokenizer = _plain(folder)
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        made = model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        found.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return found


def shots_before(shots: Sequence[Any], prompt: str) -> str:
    """A prompt behind answered examples, a line left free between them."""
    return "\n\n".join([*(f"{shot.prompt}{shot.completion}" for shot in shots), prompt])
