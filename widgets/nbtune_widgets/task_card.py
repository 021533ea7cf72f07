"""A task's preview: how many rows, how balanced, and two rows as the model will see them, what is trained marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

from nbtune_widgets.formats import one_line, shown, tail
from nbtune_widgets.markup import figures, join, messages, page
from nbtune_widgets.protocols import TaskView, TokensView

__all__ = ["task_html", "task_text"]

LABELS: Final = 20
EXAMPLES: Final = 2
TOKENS: Final = 400


def task_html(preview: TaskView, tokens: TokensView | None = None) -> str:
    """The preview as static content; with `tokens` also the lengths, and the trained tokens marked one by one."""
    facts = [("Metric", one_line(preview.metric, 60)), *((f"Rows in {name}", f"{number:,}") for name, number in preview.counts.items())]
    if tokens is not None and tokens.lengths_text:
        facts.append(("Lengths", one_line(tokens.lengths_text, 200)))
    head = Markup('<p class="nbt-head"><span class="nbt-name">{}</span> <span class="nbt-dim">{}</span></p>')
    parts = [
        head.format(shown(preview.name, 80), one_line(preview.kind, 40)),
        figures(facts),
        messages(preview.warnings, "warning", "Warning"),
        _balance(preview.label_counts),
        _examples(preview.examples),
        _tokens(tokens),
        messages(preview.notes, "note", ""),
    ]
    return page(f"Task {preview.name}", join(parts))


def task_text(preview: TaskView, tokens: TokensView | None = None) -> str:
    """The preview as plain text; what is trained stands between ⟦ and ⟧."""
    rows = ", ".join(f"{number:,} {name}" for name, number in preview.counts.items())
    lines = [f"{one_line(preview.name)} · {one_line(preview.kind)} · {one_line(preview.metric, 60)} · rows: {rows}"]
    if tokens is not None and tokens.lengths_text:
        lines.append(f"  {one_line(tokens.lengths_text, 200)}")
    labels = sorted(preview.label_counts.items(), key=lambda item: -sum(item[1].values()))
    if labels:
        said = [f"{one_line(label, 30)} {sum(counts.values()):,}" for label, counts in labels[:LABELS]]
        lines.append("  labels: " + ", ".join(said) + (f", {len(labels) - LABELS:,} more" if len(labels) > LABELS else ""))
    lines += [f"  warning: {one_line(text, 300)}" for text in preview.warnings]
    for prompt, completion in preview.examples[:EXAMPLES]:
        lines.append("  " + "\n  ".join(f"{tail(prompt, 400)}⟦{shown(completion, 300)}⟧".split("\n")))
    lines += [f"  {one_line(text, 300)}" for text in preview.notes]
    return "\n".join(lines)


def _balance(labels: Mapping[str, Mapping[str, int]]) -> Markup:
    if not labels:
        return Markup("")
    splits = list(dict.fromkeys(split for counts in labels.values() for split in counts))
    ordered = sorted(labels.items(), key=lambda item: -sum(item[1].values()))
    most, total = sum(ordered[0][1].values()), sum(sum(counts.values()) for counts in labels.values())
    rows = join(_label_row(label, counts, splits, most, total) for label, counts in ordered[:LABELS])
    heads = ["label", *(shown(split, 40) for split in splits), "all"]
    head = join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="nbt-n"') if 0 < at <= len(splits) else "", text)
        for at, text in enumerate(heads)
    )
    rest = Markup("<p>{} more labels</p>").format(f"{len(labels) - LABELS:,}") if len(labels) > LABELS else Markup("")
    return Markup(
        '<div class="nbt-scroll"><table class="nbt-t"><caption>Labels</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}'
    ).format(head, rows, rest)


def _label_row(label: str, counts: Mapping[str, int], splits: Sequence[str], most: int, total: int) -> Markup:
    number = sum(counts.values())
    bar = Markup(
        '<svg viewBox="0 0 160 10" aria-hidden="true" class="nbt-share">'
        '<rect width="{}" height="10" rx="1.5" style="fill:var(--nbt-a,#0072b2)"/></svg>{}'
    ).format(f"{max(1.0, 160 * number / max(1, most)):.1f}", f"{number:,} ({number / max(1, total):.0%})")
    cells = join(Markup('<td class="nbt-n">{}</td>').format(f"{counts.get(split, 0):,}") for split in splits)
    return Markup('<tr><th scope="row"><span class="nbt-x">{}</span></th>{}<td style="white-space:nowrap">{}</td></tr>').format(
        shown(label, 60), cells, bar
    )


def _examples(examples: Sequence[tuple[str, str]]) -> Markup:
    if not examples:
        return Markup("")
    box = Markup('<p class="nbt-x">{}<mark class="nbt-trained">{}</mark></p>')
    drawn = join(box.format(tail(prompt, 1200), shown(completion, 600)) for prompt, completion in examples[:EXAMPLES])
    head = Markup('<p class="nbt-key"><b>Rows as they are rendered</b>; what is <mark class="nbt-trained">marked</mark> is trained</p>')
    return head + drawn


def _tokens(tokens: TokensView | None) -> Markup:
    if tokens is None or not tokens.marked:
        return Markup("")
    one = Markup('<span class="nbt-token{}">{}</span>')
    rows = [
        Markup('<p class="nbt-x">{}</p>').format(
            join(
                one.format(" nbt-trained" if trained else "", shown(text, 60).replace("\n", "⏎") or "∅") for text, trained in row[-TOKENS:]
            )
        )
        for row in tokens.marked[:EXAMPLES]
    ]
    trained = [sum(flag for _, flag in row) for row in tokens.marked[:EXAMPLES]]
    title = f"Tokens ({' and '.join(f'{number:,}' for number in trained)} of them trained)"
    return Markup("<details><summary>{}</summary>{}</details>").format(title, join(rows))
