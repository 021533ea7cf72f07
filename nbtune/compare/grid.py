"""`nbtune.compare`: several approaches on the same rows, asked the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbtune.approaches import approach_of, get, label_of, wanted
from nbtune.compare.comparison import Comparison
from nbtune.errors import NbtuneError, SpecError
from nbtune.spec import CompareSpec, DecodingSpec

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach, Asking, Setting
    from nbtune.task import Task

__all__ = ["compare"]

Report = Callable[[str], None]


def _silent(text: str) -> None:
    """No progress wanted."""


def compare(
    approaches: Sequence[Any],
    *,
    task: Task,
    model: Any = None,
    dtype: str | None = None,
    device: str | None = None,
    scoring: str = "sum",
    floor: bool = True,
    decoding: Mapping[str, Any] | DecodingSpec | None = None,
    inputs: Sequence[Any] | None = None,
    report: Report = _silent,
) -> Comparison:
    """Answers the task's test rows (or `inputs`) by every approach, and scores them.

    Args:
        approaches: "zero-shot", {"few-shot": {"k": 8}}, {"run": NAME}, {"ensemble": [...]}, runs, or functions (prompt) -> answer.
        task: whose test rows are answered; few-shot examples come from its training rows.
        model: base of the prompting columns; None: that of the first run named, held as that run holds it.
        dtype: of that base; None: as the run, or what the device is fast at.
        device: as in `finetune`.
        scoring: of labels: "sum" or "mean" of their tokens' log-probabilities, these by "byte" of the label, or "generate".
        floor: of a task of classes, whether the most frequent class and a classifier over words stand beside the others, last.
        decoding: {"max_new_tokens": n, "stop": [...]}; the rest by the task's training answers.
        inputs: texts or rows without answers, compared by eye only.
        report: told in a few words what goes on.

    Raises:
        SpecError: unknown approach, option or value; nothing to compare.
        RunError: a run that is not there, failed, or has nothing trained.
        ModelError: a model cannot be loaded.
        NbtuneError: no column could answer; where some could, the others are left out, which `warnings` tell.
    """
    from nbtune.approaches.base import Asking
    from nbtune.compare.checks import check_columns

    said = {"task": task.name, "scoring": scoring, "floor": floor, **({} if decoding is None else {"decoding": decoding})}
    spec = CompareSpec.build(said)
    entries = _distinct(approaches)
    entries += _floors(entries) if spec.floor and inputs is None and task.kind == "classification" else []
    setting = replace(_setting(entries, model, dtype, device), scoring=spec.scoring, decoding=spec.decoding, report=report)
    made = []
    for entry in entries:
        report(f"preparing {label_of(*wanted(entry))}")
        made.append(approach_of(entry, task, setting))
    engine = next((approach.engine for approach in made if approach.engine is not None), None)
    asking = Asking.of(task, engine, spec.scoring, spec.decoding)
    prompts = [item.question for item in task.test] if inputs is None else task.prompts(inputs)
    made, answered, failed = _answers(made, prompts, asking, report)
    report("checking the columns")
    checks, warnings = check_columns(task, made, answered, asking=asking, prompts=prompts, setting=setting)
    warnings = [*failed, *warnings]
    notes = [note for answers in answered for note in answers.notes]
    if engine is not None:
        base = engine.base
        notes.insert(0, f"base: {base.name} ({str(base.dtype).removeprefix('torch.')}, {base.quantization or 'not quantized'})")
    if inputs is not None:
        costs = tuple({"approach": one.label, **one.costs(said)} for one, said in zip(made, answered, strict=True))
        return Comparison(task.name, None, costs, _texts(made, answered, prompts), checks, warnings, notes)
    report("computing intervals and tests")
    from nbtune.compare.scoring import score_columns
    from nbtune.compare.verdict import few_rows, verdict_of

    scored = score_columns(task, made, answered)
    verdict = verdict_of(scored.rows, scored.pairs, task.metric)
    notes += few_rows(scored.rows, scored.pairs, task.metric)
    return Comparison(task.name, task.metric.name, scored.rows, scored.answers, checks, warnings, notes, scored.pairs, verdict)


def _answers(
    made: Sequence[Approach], prompts: Sequence[str], asking: Asking, report: Report
) -> tuple[list[Approach], list[Answers], list[str]]:
    """(the columns that have answered, their answers, what kept the others from it).

    Raises:
        NbtuneError: what kept the first, where none has answered.
    """
    there: list[Approach] = []
    answered: list[Answers] = []
    failed: list[NbtuneError] = []
    for approach in made:
        try:
            answered.append(_answer(approach, prompts, asking, report))
        except NbtuneError as error:
            failed.append(error)
            continue
        there.append(approach)
    if failed and all(approach.kind == "floor" for approach in there):
        raise failed[0]
    return there, answered, [f"a column is left out: {'; '.join(str(error).splitlines())}" for error in failed]


def _floors(entries: Sequence[Any]) -> list[Any]:
    """What has to be beaten, but for what is asked for anyway; beside similar examples also the plain vote of those."""
    said = [wanted(entry) for entry in entries]
    floors: list[Any] = [{"floor": {"by": "majority"}}, {"floor": {"by": "tf-idf"}}]
    similar = [options for name, options in said if name == "few-shot" and options.select == "similar"]
    seen = {(options.k, options.embed) for options in similar}
    floors += [{"floor": {"by": "neighbours", "k": k, "embed": embed}} for k, embed in sorted(seen, key=str)]
    labels = {label_of(name, options) for name, options in said}
    return [floor for floor in floors if label_of(*wanted(floor)) not in labels]


def _answer(approach: Approach, prompts: Sequence[str], asking: Asking, report: Report) -> Answers:
    report(f"{approach.label}: 0 of {len(prompts)} rows")
    return approach.answer(prompts, asking, progress=lambda done, total: report(f"{approach.label}: {done} of {total} rows"))


def _distinct(approaches: Sequence[Any]) -> list[Any]:
    if isinstance(approaches, str | Mapping) or not isinstance(approaches, Sequence):
        raise SpecError(f"approaches are a list, not {approaches!r:.60}", hint="write - zero-shot on a line of its own, and so on")
    if not approaches:
        raise SpecError("there is nothing to compare", hint="name approaches: - zero-shot, - few-shot, - run: NAME")
    seen: list[str] = []
    for entry in approaches:
        name, options = wanted(entry)
        label = f"{name} {options!r}"
        if label in seen:
            raise SpecError(f"{entry!r:.80} is there twice", hint="each approach once; few-shot may differ by k, select or seed")
        seen.append(label)
    return list(approaches)


def _setting(entries: Sequence[Any], model: Any, dtype: str | None, device: str | None) -> Setting:
    """The base of the prompting columns."""
    from nbtune.approaches.base import Setting
    from nbtune.approaches.tuned import run_named
    from nbtune.models.catalogue import DEFAULT_DECODER
    from nbtune.models.loading import source_of
    from nbtune.objectives import WRITES

    if model is not None:
        return Setting(source_of(model), dtype, None, device)
    for entry in entries:
        name, options = wanted(entry)
        if name == get("run").name and (said := run_named(options).spec).get("objective", "sft") in WRITES:
            return Setting(said["model"], dtype or said["dtype"], said["quantization"], device or said["device"])
    return Setting(DEFAULT_DECODER, dtype, None, device)


def _texts(made: Sequence[Approach], answered: Sequence[Answers], prompts: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "row": row,
            "approach": approach.label,
            "prompt": prompt,
            "output": answers.outputs[row],
            "expected": None,
            "correct": None,
            "score": None,
        }
        for row, prompt in enumerate(prompts)
        for approach, answers in zip(made, answered, strict=True)
    )
