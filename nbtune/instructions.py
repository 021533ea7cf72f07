"""`nbtune.instructions`: several labelled tasks as one of instructions, whole tasks held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from nbtune.data.instructions import FORMAT, Phrasings, Source, instructed, mixed, shares
from nbtune.data.preparation import Prepared
from nbtune.data.templates import Template
from nbtune.errors import DataError, SpecError
from nbtune.options import SEED_LIMIT, Spec, Words, option
from nbtune.spec import TaskSpec
from nbtune.task import Task

__all__ = ["InstructionsSpec", "SetSpec", "instructions"]

_PARTS = ("train", "dev", "test")


class SetSpec(Spec):
    """One of the tasks."""

    what: ClassVar[str] = "set key"

    task: Any = option(None, "the task, or its name; left out: the set's own name")
    weight: float = option(1.0, "how much of it is trained, beside what its size says; 2: twice", gt=0, le=1000)
    templates: Words | None = option(None, "prompts that ask for its answer, with {{ column }}, {{ text }}, {{ options }}; beside its own")
    turned: Words | None = option(None, "prompts with {{ answer }} that ask for its text; []: none")


class InstructionsSpec(Spec):
    """`%%instructions`: which tasks become instructions, and which of them are held out."""

    what: ClassVar[str] = "instructions key"

    name: str = option("instructions", "name of the task that comes of it")
    sets: Any = option(..., "the tasks: names, or {name: {weight: 2, templates: [...], turned: [...]}}")
    hold_out: Words | None = option(None, "tasks that are never trained, but scored")
    inverted: float = option(0.1, "part of the training rows that are turned round: the answer is given, the text is asked for", ge=0, le=1)
    limit: int = option(3000, "a larger set counts as one of so many rows", ge=1, scale="log", slider=(100, 100_000))
    metric: Any = option(
        None,
        "exact_match, rouge1, rouge2, rougeL, bleu, chrf, squad_f1, squad_exact_match, or a bound function (output, expected) -> number",
    )
    chat: Literal["auto", True, False] = option("auto", "use the model's chat template; auto: where system is given")
    system: str | None = option(None, "system text of the chat template")
    seed: Annotated[int, "seed"] = option(0, "seed of phrasings and order", ge=0, le=SEED_LIMIT)


def instructions(sets: Any, *, known: Mapping[str, Task] | None = None, **options: Any) -> Task:
    """A task of instructions: rows of several tasks, each asked in one of several phrasings.

    Its train rows mix the sets by size and weight; its dev and test rows are those of all sets, each asked once and never turned round,
    and of the sets held out there are no others. A run with objective `instruction` tells the metric of each set, held out or not.

    Args:
        sets: {name: Task}, or {name: {"task": Task, "weight": 2, "templates": [...], "turned": [...]}}, or a list of tasks.
        known: tasks by name, where sets name them.
        **options: those of `InstructionsSpec`.

    Raises:
        SpecError: no two sets, an unknown option or set, nothing left to train, or a set whose answers are not written.
        DataError: a template that cannot be, or that reads what rows do not have.
    """
    spec = InstructionsSpec.build({**options, "sets": sets})
    chosen = _chosen(spec.sets, known or {})
    if spec.name in {task.name for task, _ in chosen.values()}:
        raise SpecError(f"what comes of the sets is to be called {spec.name}, as one of their tasks is", hint="give it a name of its own")
    held = _held_out(spec, chosen)
    sources = [_source(name, task, said, held_out=name in held) for name, (task, said) in chosen.items()]
    trained = [source for source in sources if not source.held_out]
    weights = {name: said.weight for name, (_, said) in chosen.items()}
    counts = shares({source.name: len(source.rows["train"]) for source in trained}, weights, spec.limit)
    parts = {}
    for part in _PARTS:
        asked = trained if part == "train" else sources
        rows = [
            list(instructed(source, part, counts[source.name] if part == "train" else None, inverted=spec.inverted, seed=spec.seed))
            for source in asked
        ]
        parts[part] = mixed(rows, part, spec.seed)
    said = TaskSpec.build(
        {
            "name": spec.name,
            "kind": "generation",
            "data": "instructions",
            "prompt": "{{ prompt }}",
            "completion": "{{ completion }}",
            "metric": spec.metric,
            "chat": spec.chat,
            "system": spec.system,
        }
    ).model_copy(update={"format": FORMAT})
    notes = tuple(_told(source, counts.get(source.name)) for source in sources)
    return Task.of(Prepared(said, "generation", parts["train"], parts["dev"], parts["test"], {}, notes, ()))


def _chosen(sets: Any, known: Mapping[str, Task]) -> dict[str, tuple[Task, SetSpec]]:
    """The tasks by the names of their sets, and what was said of each."""
    if isinstance(sets, list | tuple):
        names = [entry.name if isinstance(entry, Task) else str(entry) for entry in sets]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SpecError(f"set {twice!r} is there twice", hint="name it once, with a larger weight")
        sets = dict(zip(names, sets, strict=True))
    if not isinstance(sets, Mapping) or len(sets) < 2:  # noqa: PLR2004
        raise SpecError(f"sets are two tasks or more, not {sets!r:.80}", hint="sets: {tickets: {}, reviews: {weight: 2}}")
    found = {}
    for name, entry in sets.items():
        said = SetSpec.build(dict(entry)) if isinstance(entry, Mapping) else SetSpec.build({"task": entry})
        task = said.task if said.task is not None else str(name)
        if not isinstance(task, Task):
            if task not in known:
                there = ", ".join(known) or "none yet"
                raise SpecError(f"set {name!r}: there is no task {task!r:.60}", hint=f"tasks: {there}; or give a nbtune.Task")
            task = known[task]
        found[str(name)] = (task, said)
    return found


def _held_out(spec: InstructionsSpec, chosen: Mapping[str, Any]) -> set[str]:
    held = set(spec.hold_out or ())
    stray = sorted(held - set(chosen))
    if stray:
        raise SpecError(f"hold_out names {stray[0]!r}, which is none of the sets", hint=f"sets: {', '.join(chosen)}")
    if held == set(chosen):
        raise SpecError("hold_out names all sets: nothing is left to train", hint="leave one out of it")
    return held


def _source(name: str, task: Task, said: SetSpec, *, held_out: bool) -> Source:
    if task.kind in ("text", "tagging") or task.spec.format in ("messages", FORMAT):
        what = task.spec.format if task.spec.format in ("messages", FORMAT) else task.kind
        raise SpecError(f"set {name!r} is of kind {what}, which has no prompts with one answer each", hint="give tasks with a completion")
    columns = tuple(Template(str(task.spec.prompt) + (task.spec.text_pair or "")).columns(task.train[0].row).values())
    try:
        phrasings = Phrasings.of(task.kind, said.templates, said.turned)
    except DataError as error:
        raise DataError(f"set {name!r}: {error.message}", hint=error.hint) from None
    return Source(name, held_out, {"train": task.train, "dev": task.dev, "test": task.test}, columns, task.labels, phrasings)


def _told(source: Source, count: int | None) -> str:
    asked, turned = 1 + len(source.phrasings.asked), len(source.phrasings.turned)
    ways = f"{asked} phrasing{'s' * (asked > 1)}, {turned} turned round"
    if count is None:
        return f"{source.name}: held out, {len(source.rows['test'])} test rows, {ways}"
    return f"{source.name}: {count} rows of {len(source.rows['train'])} are trained, {ways}"
