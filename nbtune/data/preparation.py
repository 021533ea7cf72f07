"""From a task's spec to its examples, refusing what would make numbers lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nbtune.data.conversations import alpaca_turns, fill_conversations
from nbtune.data.division import Division, divide
from nbtune.data.examples import Example, Filled, example_key, fill
from nbtune.data.formats import Layout, layout_of
from nbtune.data.labels import Kind, completion_texts, decide_kind
from nbtune.data.pairs import paired
from nbtune.data.readers import read
from nbtune.data.rows import Row
from nbtune.data.several import fill_several, several_of
from nbtune.data.tags import fill_tagged, tags_of
from nbtune.data.templates import Template
from nbtune.errors import DataError, SpecError, did_you_mean
from nbtune.metrics.numbers import number_of
from nbtune.spec import TaskSpec

__all__ = ["Prepared", "prepare"]

_SHOWN: Final = 5


@dataclass(frozen=True)
class Prepared:
    """What a task holds; in `spec` stands what the rows' layout says.

    `completion_of` is {label: completion}, sorted; of tagging {tag: tag}; else empty.
    """

    spec: TaskSpec
    kind: Kind
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    completion_of: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(spec: TaskSpec, folder: Path | None) -> Prepared:
    """Reads, fills, checks and divides the rows of a spec.

    Raises:
        SpecError: keys that contradict each other.
        DataError: data, a template or a split that cannot be used.
    """
    _refuse_contradictions(spec)
    rows = read(spec.data, folder=folder)
    layout = layout_of([row for part in rows.values() for row in part], spec.format) if spec.prompt is None else None
    spec = _with_layout(spec, layout)
    prompt = _template("prompt", str(spec.prompt))
    completion = None if spec.completion is None else _template("completion", spec.completion)
    given, notes = _filled(spec, rows, prompt, completion, layout)
    first = next(iter(given.values()))
    second = None if spec.text_pair is None else _template("text_pair", spec.text_pair)
    if second is not None:
        given = {part: paired(items, [item.row for item in items], second, "" if part == "all" else part) for part, items in given.items()}
    for name, template in (("prompt", prompt), ("text_pair", second), ("completion", completion)):
        if template is not None:
            _refuse_constant(name, template, first[0].row)
    learned = given.get("train") or given["all"]
    kind, why = _kind(spec, learned)
    notes += why
    classes = kind == "classification"
    read_columns = [column for template in (prompt, second) if template is not None for column in template.columns(first[0].row).values()]
    columns = sorted({*read_columns, *(completion.columns(first[0].row).values() if completion is not None else ())})
    if classes:
        _refuse_labels(given, spec)
    if kind == "regression":
        _refuse_no_numbers(given)
    division = divide(given, read_columns, columns, spec.split, by_label=classes)
    texts, warnings = _completions(given, spec) if classes else ({}, _one_answer(learned) if completion is not None else ())
    tags = tags_of(given, spec.labels) if kind == "tagging" else several_of(given, spec.labels) if kind == "multi-label" else ()
    notes += _untrained(division, texts)
    warnings = (*division.warnings, *warnings, *(_contradictions(given) if classes else _undefined(division, kind)))
    parts = {part: _examples(part, rows, texts) for part, rows in division.parts.items()}
    texts = texts or dict(zip(tags, tags, strict=True))
    return Prepared(spec, kind, parts["train"], parts["dev"], parts["test"], texts, notes + division.notes, warnings)


def _with_layout(spec: TaskSpec, layout: Layout | None) -> TaskSpec:
    if layout is None:
        return spec
    said = {"prompt": layout.prompt, "completion": layout.completion, "format": layout.name, "kind": spec.kind or layout.kind}
    if layout.turns is not None and (spec.chat is False or spec.kind not in (None, "generation")):
        what = "chat: false" if spec.chat is False else f"kind: {spec.kind}"
        raise SpecError(f"rows are conversations, and {what} is given", hint=f"drop {what}, or write prompt and completion")
    return spec.model_copy(update=said)


def _filled(
    spec: TaskSpec, rows: Mapping[str, Sequence[Row]], prompt: Template, completion: Template | None, layout: Layout | None
) -> tuple[dict[str, Sequence[Filled]], tuple[str, ...]]:
    """The rows of each part with their texts, and what is to be said of their layout."""
    names = {part: "" if part == "all" else part for part in rows}
    told: tuple[str, ...] = () if layout is None else (_told(layout, list(next(iter(rows.values()))[0])),)
    if layout is not None and layout.turns is not None:
        talks = {part: _joined(items, layout, names[part]) for part, items in rows.items()}
        found = {part: fill_conversations(items, layout.turns or "messages", names[part]) for part, items in talks.items()}
        dropped = sum(count for _, count in found.values())
        told += (f"{dropped} conversations end without an answer: what stands behind the last one is left out",) if dropped else ()
        return {part: items for part, (items, _) in found.items()}, told
    filling = {"tagging": fill_tagged, "multi-label": fill_several}.get(spec.kind or "")
    if filling is not None and completion is not None:
        return {part: filling(items, prompt, completion, names[part]) for part, items in rows.items()}, told
    return {part: fill(items, prompt, completion, names[part]) for part, items in rows.items()}, told


def _told(layout: Layout, columns: Sequence[str]) -> str:
    """By what a layout is known, and the columns that it leaves out but for the name of a folder's file."""
    others = [name for name in columns if name not in layout.reads and name != "file"]
    left = f"; not read: {', '.join(others[:_SHOWN])}{', ...' if len(others) > _SHOWN else ''}" if others else ""
    return f"format: {layout.name}, by the columns {', '.join(columns[:6])}{left}"


def _joined(rows: Sequence[Row], layout: Layout, part: str) -> Sequence[Row]:
    """Rows as conversations whose turns stand in several columns: in those of Alpaca, or in prompt and completion, both of them turns."""
    if layout.turns:
        return rows
    if "instruction" in layout.reads:
        where = f"{part} row" if part else "row"
        return [{**row, "messages": alpaca_turns(row, f"{where} {number}")} for number, row in enumerate(rows, start=1)]
    return [{"messages": [*_as_list(row["prompt"]), *_as_list(row["completion"])]} for row in rows]


def _as_list(turns: object) -> list[object]:
    return turns if isinstance(turns, list) else [turns]


def _refuse_contradictions(spec: TaskSpec) -> None:
    if spec.chat is False and spec.system is not None:
        msg = "system is given, but chat: false leaves it out"
        raise SpecError(msg, hint="drop one of the two")
    if spec.prompt is not None and spec.format != "auto":
        msg = f"format is {spec.format}, and a prompt is given, which says itself what a row is"
        raise SpecError(msg, hint="drop one of the two")
    if spec.prompt is None and spec.completion is not None:
        raise SpecError("prompt is missing", hint="a completion is given: give the template of what it answers, too")
    if spec.kind == "text":
        given = [name for name in ("completion", "system") if getattr(spec, name) is not None] + ["chat"] * (spec.chat is True)
        if given:
            msg = f"{given[0]} is given, but kind: text has none: the whole text is what the prompt says"
            raise SpecError(msg, hint=f"drop {given[0]}, or use kind: generation")
    _refuse_odd_pair(spec)
    if spec.kind in ("generation", "regression", "text") and spec.labels is not None:
        msg = f"labels are given, but kind: {spec.kind} has none"
        raise SpecError(msg, hint="say kind: classification, or drop labels")
    if not spec.name.strip():
        msg = "name is empty"
        raise SpecError(msg, hint="give the task a name")
    if spec.labels is not None:
        stripped = [label.strip() for label in spec.labels]
        twice = [label for label in stripped if stripped.count(label) > 1 or not label]
        if twice:
            msg = f"labels holds {twice[0]!r} twice" if twice[0] else "labels holds an empty label"
            raise SpecError(msg, hint="give each class once")


def _refuse_odd_pair(spec: TaskSpec) -> None:
    if spec.kind == "pairs" and spec.text_pair is None:
        msg = "kind is pairs, and text_pair is missing"
        raise SpecError(msg, hint='give the template of the second text: text_pair: "{{ hypothesis }}"')
    if spec.text_pair is None:
        return
    if spec.prompt is None:
        raise SpecError("text_pair is given, and prompt is missing", hint="give the template of the first text, too")
    if spec.kind in ("tagging", "text"):
        raise SpecError(f"text_pair is given, and kind {spec.kind} reads one text", hint="drop one of the two")


def _refuse_no_numbers(given: Mapping[str, Sequence[Filled]]) -> None:
    """Refuses an answer that is no number, and numbers that are all the same."""
    for part, items in given.items():
        for number, item in enumerate(items, start=1):
            if number_of(item.completion) is None:
                where = f"{part} row {number}" if part != "all" else f"row {number}"
                msg = f"{where}: the completion is {item.completion.strip()!r:.60}, which is no number"
                raise DataError(msg, hint="kind regression learns numbers such as -1.5 or 2e3, nothing beside them")
    learned = {number_of(item.completion) for item in given.get("train") or given["all"]}
    if len(learned) == 1:
        msg = f"every answer is {next(iter(learned))}: there is nothing to learn"
        raise DataError(msg, hint="check the completion template")


def _template(name: str, source: str) -> Template:
    try:
        return Template(source)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", hint=error.hint) from None


def _refuse_constant(name: str, template: Template, row: Mapping[str, object]) -> None:
    if template.fields:
        return
    braced = next((column for column in row if f"{{{column}}}" in template.source), None)
    shown = f"{{{{ {braced or next(iter(row))} }}}}"
    msg = f"the {name} reads no column, it would be the same for every row: {template.source[:60]!r}"
    raise DataError(msg, hint=f"write {shown} where the value of the column goes; columns: {', '.join(list(row)[:12])}")


def _kind(spec: TaskSpec, learned: Sequence[Filled]) -> tuple[Kind, tuple[str, ...]]:
    if spec.kind is not None:
        return "classification" if spec.kind == "pairs" else spec.kind, ()
    if spec.labels is not None:
        return "classification", ("kind: classification, because labels are given",)
    if spec.metric in ("accuracy", "macro_f1"):
        return "classification", (f"kind: classification, because the metric is {spec.metric}",)
    if spec.metric in ("pearson", "spearman", "mae", "rmse"):
        return "regression", (f"kind: regression, because the metric is {spec.metric}",)
    kind, why = decide_kind([item.completion for item in learned])
    return kind, (why,)


def _refuse_labels(given: Mapping[str, Sequence[Filled]], spec: TaskSpec) -> None:
    """Refuses labels that are not listed, labels that training never shows, and data with one label only."""
    listed = {label.strip() for label in spec.labels or ()}
    learned = {item.label for item in given.get("train", given.get("all", ()))}
    known = listed or learned
    for part, items in given.items():
        strays = [(number, item.label) for number, item in enumerate(items, start=1) if item.label not in known]
        if not strays:
            continue
        number, label = strays[0]
        where = f"{part} row {number}" if part != "all" else f"row {number}"
        also = f" (and {len(strays) - 1} more rows)" if len(strays) > 1 else ""
        if listed:
            msg = f"{where} has the label {label!r}, which labels does not list{also}"
            raise DataError(msg, hint=did_you_mean(label, listed))
        names = sorted({name for _, name in strays})
        msg = f"{part} has labels that train never shows: {', '.join(map(repr, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''}"
        raise DataError(msg, hint="add rows of them to train, drop them, or list all classes in labels:")
    if len(known) < 2:  # noqa: PLR2004
        msg = f"there is only one label: {next(iter(known))!r}"
        raise DataError(msg, hint="classification needs two; check the completion template")


def _completions(given: Mapping[str, Sequence[Filled]], spec: TaskSpec) -> tuple[dict[str, str], tuple[str, ...]]:
    learned = [item.completion for item in given.get("train", given.get("all", ()))]
    shown = {text.strip() for text in learned}
    others = [item.completion for items in given.values() for item in items if item.label not in shown]
    return completion_texts(learned + others, spec.labels or ())


def _one_answer(learned: Sequence[Filled]) -> tuple[str, ...]:
    answers = {item.completion for item in learned}
    return (f"every completion is {next(iter(answers))[:60]!r}: there is nothing to tell apart",) if len(answers) == 1 else ()


def _undefined(division: Division, kind: Kind) -> tuple[str, ...]:
    """What is to be said of parts of numbers that are all the same, with which nothing can correlate."""
    if kind != "regression":
        return ()
    parts = {part: {item.completion.strip() for item in items} for part, items in division.parts.items()}
    alike = {part: next(iter(found)) for part, found in parts.items() if len(found) == 1}
    return tuple(f"every {part} row expects {value}: no correlation with them is defined" for part, value in alike.items())


def _untrained(division: Division, texts: Mapping[str, str]) -> tuple[str, ...]:
    trained = {item.label for item in division.parts["train"]}
    unseen = [label for label in texts if label not in trained]
    return (f"no train row has the label {', '.join(map(repr, unseen[:_SHOWN]))}",) if unseen else ()


def _contradictions(given: Mapping[str, Sequence[Filled]]) -> tuple[str, ...]:
    labels: dict[str, set[str]] = defaultdict(set)
    for items in given.values():
        for item in items:
            labels[item.prompt].add(item.label)
    torn = [prompt for prompt, found in labels.items() if len(found) > 1]
    if not torn:
        return ()
    found = " and ".join(map(repr, sorted(labels[torn[0]])[:_SHOWN]))
    count = "1 prompt has" if len(torn) == 1 else f"{len(torn)} prompts have"
    return (f"{count} contradicting labels, for one {torn[0].strip()[:60]!r}: {found}",)


def _examples(part: str, rows: Sequence[Filled], texts: Mapping[str, str]) -> tuple[Example, ...]:
    """The examples of a part; a classification's completions are written as `texts` writes their label."""
    made: list[Example] = []
    for index, item in enumerate(rows):
        completion = texts.get(item.label, item.completion) if texts else item.completion
        label = item.label if texts else None
        made.append(Example(index, part, item.row, item.prompt, completion, label, example_key(item.prompt, completion)))
    return tuple(made)
