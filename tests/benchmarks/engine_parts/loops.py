"""Our run, and a bare loop over the same batches and loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nbtune
from engine_parts.machine import finish
from engine_parts.rows import MODEL, task
from nbtune.events import Event, Step

NEVER = 1_000_000_000


@dataclass(frozen=True)
class Epoch:
    """Seconds of `steps` steps, and the mean loss of all steps of the run that they belong to."""

    seconds: float
    loss: float
    steps: int


def our_epoch(rows: list[dict[str, str]], now: Callable[[], float]) -> Epoch:
    """Two epochs less one, a fresh model each: what an epoch costs once everything is in place."""
    one, two = (our_run(rows, now, epochs=epochs) for epochs in (1, 2))
    steps = two.steps - one.steps
    return Epoch(two.seconds - one.seconds, two.loss, steps)


def our_run(rows: list[dict[str, str]], now: Callable[[], float], *, epochs: int = 1, panel: bool = False) -> Epoch:
    """A run at defaults on a fresh model, from its first step's end to its last's.

    Evaluation and checkpoints are off but for those after the last step. The first and the last step are told as soon as the device is
    done with them, the others one late; so only these two times are read.
    """
    from nbtune.models.shared import unload

    unload()
    seen: list[tuple[float, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, Step):
            seen.append((now(), event.loss))

    run = nbtune.finetune(
        "lora", task=task(rows), model=MODEL, num_train_epochs=epochs, eval_steps=NEVER, save_steps=NEVER, max_eval_rows=1, num_samples=0
    )
    run.listen(note)
    if panel:
        from nbtune_widgets.panel import RunPanel

        RunPanel(run).show()
    run.wait()
    return _epoch(seen)


def _epoch(seen: list[tuple[float, float]]) -> Epoch:
    return Epoch(seen[-1][0] - seen[0][0], sum(loss for _, loss in seen) / len(seen), len(seen) - 1)


def bare_run(rows: list[dict[str, str]], now: Callable[[], float], *, epochs: int = 1) -> Epoch:
    """A plain torch loop given the batches and the loss that our run uses: forward, backward, clip, AdamW; timed as `our_run` is."""
    import torch

    from nbtune.data.batches import collate, rows_of_step
    from nbtune.data.encoding import Encoder, encode_rows
    from nbtune.methods import get as method_of
    from nbtune.models.loading import source_of
    from nbtune.models.shared import own_base
    from nbtune.objectives import get

    source = source_of(MODEL)
    base = own_base(source, dtype=None, quantization=None, device=None)
    method = method_of("lora")
    method.attach(base, method.spec.build({"task": "bench", "model": MODEL}), "bare")
    encoded, _ = encode_rows(Encoder(source.tokenizer), task(rows).train, max_length=512)
    parameters = list(base.trained("bare").values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    objective = get("sft")
    seen: list[tuple[float, Any]] = []
    steps = -(-len(encoded) // 8) * epochs
    for step in range(steps):
        with base.lease("bare", training=True) as model:  # sets adapter and mode once; autocast must be entered anew after each update
            chosen: list[Any] = sorted((encoded[row] for row in rows_of_step(len(encoded), 8, 0, step)), key=lambda row: len(row.ids))
            loss, weight = objective.loss(model, collate(chosen, packed=True, pad_id=0).to(base.device))
            (loss / weight).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step in (0, steps - 1):
            finish()
        seen.append((now(), loss.detach() / weight))
    return _epoch([(time, float(loss)) for time, loss in seen])
