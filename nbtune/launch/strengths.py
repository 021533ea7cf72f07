"""A run at several strengths: what the task gains and what is forgotten, on one curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbtune.data.retained import GENERAL
from nbtune.errors import RunError, SpecError
from nbtune.launch.attached import engine_of, method_of
from nbtune.launch.variants import MOST, own_weights

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.inference import Engine
    from nbtune.store import RunFolder
    from nbtune.task import Task
    from nbtune.training.evaluation import Evaluator

__all__ = ["strength_curve"]


def strength_curve(folder: RunFolder, task: Task, strengths: Sequence[float], *, retain: str | None, max_rows: int) -> pd.DataFrame:
    """See `Run.strength`."""
    import pandas as pd

    from nbtune.models.families import is_seq2seq
    from nbtune.models.strength import at_strength
    from nbtune.training.forgetting import Retained

    values = [float(value) for value in strengths]
    if not values or any(not 0 <= value <= MOST for value in values):
        raise SpecError(f"a strength is a number from 0 to 2, not {list(strengths)!r:.60}", hint="0 is the base, 1 what was trained")
    if folder.status() in ("queued", "running", "paused"):  # it would go on training at that strength
        raise RunError(f"run {folder.name} is {folder.status()}: its strength can be told when it is over", hint="wait for it: run.wait()")
    if not task.dev:
        raise RunError(f"task {task.name!r} has no dev rows to score on", hint="give it some: split: {dev: 0.1}")
    engine = engine_of(folder, task)
    goes_on = not engine.base.heads and not is_seq2seq(engine.base.config)  # else it cannot be asked for a text
    asked = Retained.of(retain or folder.spec.get("retain") or GENERAL, engine.encoder.first) if goes_on else None
    dev = _dev(folder, task, engine, max_rows)
    untouched = own_weights(folder, engine.base, folder.id)
    rows = []
    for value in values:
        with at_strength(engine.base, folder.id, value, untouched):
            row: dict[str, Any] = {"strength": value, task.metric.name: dev.score()}
            if asked is not None:
                row["retained_loss"] = asked.loss(engine.base, folder.id)
        rows.append(row)
    return pd.DataFrame(rows)


def _dev(folder: RunFolder, task: Task, engine: Engine, max_rows: int) -> Evaluator:
    """What scores the dev rows as a training does."""
    from nbtune.data.encoding import encode_dev
    from nbtune.estimate.lengths import most_tokens
    from nbtune.models.families import can_pack
    from nbtune.objectives import get
    from nbtune.training.evaluation import Evaluator

    examples = task.dev[:max_rows]
    most = most_tokens(method_of(folder)[1], engine.base.config)
    rows = encode_dev(engine.encoder, examples, max_length=most) if task.metric.of_loss else ()
    return Evaluator(
        task=task,
        base=engine.base,
        adapter=folder.id,
        encoder=engine.encoder,
        objective=get(folder.spec["objective"]),
        examples=examples,
        rows=rows,
        packed=can_pack(engine.base.config),
        num_samples=0,
    )
