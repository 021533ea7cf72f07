"""`nbtune.compare`: several approaches on the same rows, asked the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbtune.approaches import approach_of, get, label_of, wanted
from nbtune.compare.comparison import Comparison
from nbtune.errors import NbtuneError, SpecError
from nbtune.inference.progress import counted
from nbtune.spec import CompareSpec, DecodingSpec

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach, Asking, Setting
    from nbtune.compare.learning import Learning
    from nbtune.inference import Engine
    from nbtune.run import Run
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
    train_sizes: Sequence[int] | None = None,
    report: Report = _silent,
) -> Comparison:
    """Answers the task's test rows (or `inputs`) by every approach, and scores them.

    Args:
        approaches: "zero-shot", {"few-shot": {"k": 8}}, {"run": NAME}, {"ensemble": [...]}, runs, or functions (prompt) -> answer.
        task: whose test rows are answered; few-shot examples come from its training rows.
        model: base of the prompting columns; None: that of the runs named, held as they hold it; several bases give a column each.
        dtype: of that base; None: as the run, or what the device is fast at.
        device: as in `finetune`.
        scoring: of labels: "sum" or "mean" of their tokens' log-probabilities, their sum by "byte" of the label, or "generate".
        floor: of a task of classes, whether the most frequent class and a classifier over words stand beside the others, last.
        decoding: {"max_new_tokens": n, "stop": [...]}, and a form that answers have to keep: "choices", "json_schema" or "regex"; the
            rest by the task's training answers.
        inputs: texts or rows without answers, compared by eye only.
        train_sizes: numbers of training rows, of which `curve` tells what each column scores; runs are trained again for each.
        report: told in a few words what goes on.

    Raises:
        SpecError: unknown approach, option or value; nothing to compare.
        RunError: a run that is not there, failed, or has nothing trained.
        ModelError: a model cannot be loaded.
        NbtuneError: no column could answer; where some could, the others are left out, which `warnings` tell.
    """
    from nbtune.approaches.base import Asking, constraint_of
    from nbtune.compare.checks import check_columns
    from nbtune.compare.learning import Learning, learning_curve, refuse_sizes

    said: dict[str, Any] = {"task": task.name, "scoring": scoring, "floor": floor, **({} if decoding is None else {"decoding": decoding})}
    said |= {} if train_sizes is None else {"train_sizes": train_sizes}
    spec = CompareSpec.build(said)
    if spec.train_sizes is not None:
        refuse_sizes(task, spec.train_sizes, inputs=inputs is not None)
    constraint_of(spec.decoding)  # a form that cannot be followed is refused before anything is loaded
    entries = _distinct(approaches)
    floors = _floors(entries) if spec.floor and inputs is None and task.kind == "classification" else []
    bases = _settings(entries, model, dtype, device)
    settings = [replace(base, scoring=spec.scoring, decoding=spec.decoding, report=report) for base in bases]
    columns = _columns(entries, settings)
    made, lacking = _made(columns, [(floor, settings[0]) for floor in floors], task, report)
    engines = [engine for approach in made for engine in approach.engines]
    asking = Asking.of(task, engines, spec.scoring, spec.decoding)
    prompts = [item.question for item in task.test] if inputs is None else task.prompts(inputs)
    made, answered, failed = _answers(made, prompts, asking, report)
    report("checking the columns")
    checks, warnings = check_columns(task, made, answered, asking=asking, prompts=prompts, setting=settings[0])
    warnings = [*failed, *warnings]
    notes = [*lacking, *dict.fromkeys(note for one, said in zip(made, answered, strict=True) for note in (*one.notes, *said.notes))]
    if engines:
        base = engines[0].base
        notes.insert(0, f"base: {base.name} ({str(base.dtype).removeprefix('torch.')}, {base.quantization or 'not quantized'})")
    if inputs is not None:
        costs = tuple({"approach": one.label, **one.costs(said)} for one, said in zip(made, answered, strict=True))
        return Comparison(task.name, None, costs, _texts(made, answered, prompts), checks, warnings, notes)
    learning = Learning()
    if spec.train_sizes is not None:
        full = {approach.label: (approach, answers) for approach, answers in zip(made, answered, strict=True)}
        columns += [(floor, settings[0], label_of(*wanted(floor))) for floor in floors]
        learning = learning_curve(columns, task, spec.train_sizes, full=full, asking=asking, report=report)
    report("computing intervals and tests")
    return _graded(task, made, answered, learning, checks=checks, warnings=warnings, notes=notes)


def _graded(
    task: Task,
    made: Sequence[Approach],
    answered: Sequence[Answers],
    learning: Learning,
    *,
    checks: list[str],
    warnings: list[str],
    notes: list[str],
) -> Comparison:
    """The columns with their scores, every two against each other, and what follows."""
    from nbtune.compare.scoring import score_columns
    from nbtune.compare.verdict import few_rows, verdict_of

    scored = score_columns(task, made, answered)
    verdict = verdict_of(scored.rows, scored.pairs, task.metric)
    notes = [*notes, *few_rows(scored.rows, scored.pairs, task.metric), *learning.notes]
    return Comparison(
        task.name,
        task.metric.name,
        scored.rows,
        scored.answers,
        checks,
        [*warnings, *learning.warnings],
        notes,
        scored.pairs,
        (*verdict, *learning.verdict),
        kind=task.kind,
        labels=task.labels,
        points=learning.points,
    )


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


def _columns(entries: Sequence[Any], settings: Sequence[Setting]) -> list[tuple[Any, Setting, str]]:
    """(entry, the base it asks, its label): of several bases one for each that prompts; those of one label are numbered."""
    found: list[tuple[Any, Setting, str]] = []
    for entry in entries:
        name, options = wanted(entry)
        label = label_of(name, options)
        if len(settings) > 1 and getattr(get(name), "asks_base", True):
            found += [(entry, setting, f"{label} on {setting.called}") for setting in settings]
        else:
            found.append((entry, settings[0], label))
    seen: Counter[str] = Counter()
    numbered = []
    for entry, setting, label in found:
        seen[label] += 1
        numbered.append((entry, setting, f"{label} ({seen[label]})" if seen[label] > 1 else label))
    return numbered


def _made(
    columns: Sequence[tuple[Any, Setting, str]], floors: Sequence[tuple[Any, Setting]], task: Task, report: Report
) -> tuple[list[Approach], list[str]]:
    """(all approaches, which of the floors that nobody asked for cannot be).

    Raises:
        NbtuneError: what was asked for cannot be.
    """
    made, lacking = [], []
    for entry, setting, label in columns:
        report(f"preparing {label}")
        made.append(approach_of(entry, task, setting, label))
    for floor, setting in floors:
        label = label_of(*wanted(floor))
        report(f"preparing {label}")
        try:
            made.append(approach_of(floor, task, setting))
        except NbtuneError as error:
            lacking.append(f"{label} is left out: {error.message}")
    return made, lacking


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
    progress = counted(report, approach.label)
    progress(0, len(prompts))
    return approach.answer(prompts, asking, progress=progress)


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


def _settings(entries: Sequence[Any], model: Any, dtype: str | None, device: str | None) -> list[Setting]:
    """The base of the prompting columns, or the bases of the runs; the first is asked where there may be one alone."""
    from nbtune.approaches.base import Setting
    from nbtune.models.catalogue import DEFAULT_DECODER
    from nbtune.models.device import device_of, dtype_of
    from nbtune.models.loading import source_of
    from nbtune.objectives import WRITES

    if model is not None:
        return [Setting(source_of(model), dtype, None, device)]
    found: dict[tuple[str, ...], Setting] = {}
    for run in _runs_in(entries):
        said = run.spec
        if said.get("objective", "sft") in WRITES:
            setting = Setting(said["model"], dtype or said["dtype"], said["quantization"], device or said["device"])
            where = device_of(setting.device)
            key = (str(setting.model), str(dtype_of(setting.dtype, where)), str(setting.quantization), str(where))
            if key not in found:
                found[key] = replace(setting, tuned=_off(run)) if said.get("bound") else setting
    return list(found.values()) or [Setting(DEFAULT_DECODER, dtype, None, device)]


def _off(run: Run) -> Engine | None:
    """The object that a run was trained on, its adapter off; None where the run has written into a copy of it."""
    engine = run.wait().engine()
    return engine.off() if engine.base.has_adapter(run.id) else None


def _runs_in(entries: Sequence[Any]) -> Iterator[Run]:
    """The runs named, in ensembles too."""
    from nbtune.approaches.tuned import run_named

    for entry in entries:
        name, options = wanted(entry)
        if name == "run":
            yield run_named(options)
        elif name == "ensemble" and isinstance(options.of, list | tuple):
            yield from _runs_in(options.of)


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
            "passages": answers.cited(row),
        }
        for row, prompt in enumerate(prompts)
        for approach, answers in zip(made, answered, strict=True)
    )
