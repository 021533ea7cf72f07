"""A diagnosis of the data doctor as static content: what was found, how long the rows are, and which tokens are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from nbtune_widgets.curves import ticks
from nbtune_widgets.formats import one_line, shown
from nbtune_widgets.markup import figures, join, page, table

if TYPE_CHECKING:
    from nbtune.data.doctor import Bin, Diagnosis, Marked, Spread
    from nbtune.data.findings import Finding

__all__ = ["diagnosis_html", "diagnosis_text"]

PLACES: Final = 8
LABELS: Final = 20
TOKENS: Final = 400
_KINDS: Final = {"refuse": ("error", "Refused"), "warn": ("warning", "Warning"), "info": ("note", "Note")}
_WIDTH, _HEIGHT = 520.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 8.0, 16.0, 30.0
_Scale = Callable[[float], float]


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The whole diagnosis: no script, no address; what is trained is underlined and not told by colour alone."""
    head = Markup(
        '<p class="nbt-head"><span class="nbt-name">{}</span> <span class="nbt-dim">{}</span> <span class="nbt-pill">{}</span></p>'
    )
    parts = [
        head.format(shown(diagnosis.task, 80), f"as {shown(diagnosis.model, 80)} reads it", _verdict(diagnosis)),
        figures(_figures(diagnosis)),
        join(_message(item) for item in diagnosis.findings),
        _histogram(diagnosis),
        _labels(diagnosis),
        _marks(diagnosis),
        _masks(diagnosis.marked),
    ]
    return page(f"Data of task {diagnosis.task}", join(parts))


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The diagnosis as plain text; what is trained stands between ⟦ and ⟧."""
    lines = [f"{one_line(diagnosis.task)} as {one_line(diagnosis.model)} reads it · {_verdict(diagnosis)}"]
    lines += [f"  {name.lower()}: {value}" for name, value in _figures(diagnosis)]
    for item in diagnosis.findings:
        where = f" ({_places(item)})" if item.rows else ""
        lines.append(f"  {_KINDS[item.level][1].lower()}: {one_line(item.what, 400)}{where}")
        lines += [f"    → {one_line(item.fix, 400)}"] if item.fix else []
    most, limit = max((one.count for one in diagnosis.histogram), default=0), diagnosis.max_length
    lines += ["  train rows by tokens:"] if diagnosis.histogram else []
    width = max((len(_range(one)) for one in diagnosis.histogram), default=0)
    for one in diagnosis.histogram:
        bar = "█" * -(-30 * one.count // max(1, most))
        over = f"  {'over' if one.low > limit else 'holds'} max_length {limit:,}" if one.high >= limit else ""
        lines.append(f"    {_range(one):>{width}}  {bar}{' ' * bool(bar)}{one.count:,}{over}")
    if diagnosis.labels:
        said = [f"{one_line(label, 30)} {count:,}" for label, count in list(diagnosis.labels.items())[:LABELS]]
        more = len(diagnosis.labels) - LABELS
        lines.append(f"  train {diagnosis.labelled} by label: " + ", ".join(said) + (f", {more:,} more labels" if more > 0 else ""))
    for row in diagnosis.marked:
        runs = [(trained, "".join(text for text, _ in part)) for trained, part in groupby(row.pieces, key=lambda piece: piece[1])]
        marked = "".join(f"⟦{shown(text, 600)}⟧" if trained else shown(text, 1200) for trained, text in runs)
        lines.append(f"  {_title(row)}")
        lines.append("    " + "\n    ".join(marked.split("\n")))
    return "\n".join(lines)


def _verdict(diagnosis: Diagnosis) -> str:
    refused, warned = len(diagnosis.refusals), len(diagnosis.warnings)
    if refused:
        return f"cannot be trained: {refused} thing{'s' * (refused > 1)} to mend"
    return f"can be trained, {warned} warning{'s' * (warned > 1)}" if warned else "nothing to mend"


def _figures(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    pairs = [(f"Rows in {part}", f"{count:,}") for part, count in diagnosis.counts.items()]
    cut = f"{diagnosis.cut_rows:,} rows, {diagnosis.cut_tokens:,} tokens" if diagnosis.cut_rows else "nothing"
    return [
        *pairs,
        ("Tokens of a train row", _spread(diagnosis.lengths)),
        ("Trained tokens of it", _spread(diagnosis.trained) + (f"; none in {diagnosis.untrained:,} rows" if diagnosis.untrained else "")),
        ("max_length", f"{diagnosis.max_length:,}"),
        ("Cut off", cut),
    ]


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return f"{spread.low:,}"
    return f"{spread.low:,} to {spread.high:,}, median {spread.median:,}"


def _message(finding: Finding) -> Markup:
    kind, word = _KINDS[finding.level]
    fix = Markup("\n→ {}").format(shown(finding.fix, 400)) if finding.fix else Markup("")
    where = Markup('\n<small class="nbt-dim">{}</small>').format(_places(finding)) if finding.rows else Markup("")
    return Markup('<p class="nbt-msg nbt-{}"><b>{}</b> {}{}{}</p>').format(kind, word, shown(finding.what, 500), fix, where)


def _places(finding: Finding) -> str:
    more = len(finding.rows) - PLACES
    return shown(", ".join(finding.rows[:PLACES]), 400) + (f" and {more:,} more" if more > 0 else "")


def _range(one: Bin) -> str:
    return f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}"


def _histogram(diagnosis: Diagnosis) -> Markup:
    """Bars of train rows by tokens; `max_length` is a dashed line among them, and bars beyond it are drawn hollow."""
    bars = diagnosis.histogram
    if not bars:
        return Markup("")
    first, last = bars[0].low, bars[-1].high + 1
    most = max(one.count for one in bars)

    def x(tokens: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (tokens - first) / (last - first)

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * count / most

    limit = diagnosis.max_length
    parts = [_grid(y, most), *(_bar(one, x, y, over=one.low > limit) for one in bars), _axis(x, bars)]
    within = first <= limit < last
    parts += [_limit_line(x(limit + 1), limit)] if within else []
    beside = "" if within else f"; max_length {limit:,} is beyond all of them" if limit >= last else f"; all are over max_length {limit:,}"
    said = ", ".join(f"{_range(one)}: {one.count}" for one in bars if one.count)
    return Markup(
        '<div style="max-width:650px"><p class="nbt-key"><b>Train rows by tokens</b>{}</p><svg viewBox="0 0 {} {}" role="img" '
        'aria-label="{}" font-size="10" font-family="system-ui,sans-serif">{}</svg></div>'
    ).format(beside, f"{_WIDTH:g}", f"{_HEIGHT:g}", f"Train rows by tokens: {said}{beside}; max_length is {limit}", join(parts))


_TEXT: Final = Markup('<text x="{}" y="{}" text-anchor="{}" fill="currentColor" fill-opacity=".75">{}</text>')


def _grid(y: _Scale, most: int) -> Markup:
    line = Markup('<path d="M{} {}H{}" stroke="currentColor" stroke-opacity=".12"/>')
    whole = [value for value in ticks(0, most, 3) if value == int(value)]
    return join(
        line.format(f"{_LEFT:g}", f"{y(value):.1f}", f"{_WIDTH - _RIGHT:g}")
        + _TEXT.format(f"{_LEFT - 6:g}", f"{y(value) + 3.5:.1f}", "end", f"{int(value):,}")
        for value in whole
    )


def _bar(one: Bin, x: _Scale, y: _Scale, *, over: bool) -> Markup:
    colour = "var(--nbt-b,#d55e00)" if over else "var(--nbt-a,#0072b2)"
    look = f"fill:{colour};fill-opacity:.18;stroke:{colour};stroke-dasharray:3 2" if over else f"fill:{colour}"
    width = max(1.0, x(one.high + 1) - x(one.low) - 1.5)
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" style="{}"><title>{}</title></rect>').format(
        f"{x(one.low):.1f}",
        f"{y(one.count):.1f}",
        f"{width:.1f}",
        f"{y(0) - y(one.count):.1f}",
        look,
        f"{_range(one)} tokens: {one.count:,} rows",
    )


def _axis(x: _Scale, bars: Sequence[Bin]) -> Markup:
    """The edge of every bar, or of every second where they stand close; what they count below."""
    every = 1 if len(bars) <= 10 else 2  # noqa: PLR2004
    edges = [one.low for one in bars][::every]
    labels = [_TEXT.format(f"{x(edge):.1f}", f"{_HEIGHT - _BOTTOM + 13:g}", "middle", f"{edge:,}") for edge in edges]
    return join([*labels, _TEXT.format(f"{(_LEFT + _WIDTH - _RIGHT) / 2:g}", f"{_HEIGHT - 4:g}", "middle", "tokens")])


def _limit_line(at: float, limit: int) -> Markup:
    line = Markup('<path d="M{0} {1}V{2}" style="stroke:var(--nbt-b,#d55e00)" stroke-width="1.5" stroke-dasharray="4 3"/>')
    anchor, shift = ("end", -4) if at > _WIDTH / 2 else ("start", 4)
    return line.format(f"{at:.1f}", "4", f"{_HEIGHT - _BOTTOM:g}") + _TEXT.format(
        f"{at + shift:.1f}", "11", anchor, f"max_length {limit:,}"
    )


def _labels(diagnosis: Diagnosis) -> Markup:
    if not diagnosis.labels:
        return Markup("")
    most, total = max(1, *diagnosis.labels.values()), max(1, sum(diagnosis.labels.values()))
    bar = Markup(
        '<svg viewBox="0 0 160 10" aria-hidden="true" class="nbt-share">'
        '<rect width="{}" height="10" rx="1.5" style="fill:var(--nbt-a,#0072b2)"/></svg>{}'
    )
    rows = [
        (shown(label, 60), f"{count:,}", bar.format(f"{160 * count / most:.1f}", f"{count / total:.1%}"))
        for label, count in list(diagnosis.labels.items())[:LABELS]
    ]
    more = len(diagnosis.labels) - LABELS
    rest = Markup("<p>{} more labels</p>").format(f"{more:,}") if more > 0 else Markup("")
    return table("Labels", ("label", "train rows", "share"), rows, numeric=frozenset({1})) + rest


def _marks(diagnosis: Diagnosis) -> Markup:
    return figures((name, shown(value, 60)) for name, value in diagnosis.special)


def _masks(rows: Sequence[Marked]) -> Markup:
    if not rows:
        return Markup("")
    head = Markup('<p class="nbt-key"><b>Rows in tokens</b>; what is <mark class="nbt-trained">underlined</mark> is trained</p>')
    return head + join(_mask(row) for row in rows)


def _mask(row: Marked) -> Markup:
    one = Markup('<span class="nbt-token{}">{}</span>')
    kept = row.pieces[-TOKENS:]
    tokens = join(one.format(" nbt-trained" if trained else "", shown(text, 60).replace("\n", "⏎") or "∅") for text, trained in kept)
    before = Markup("… ") if len(kept) < len(row.pieces) else Markup("")
    return Markup('<p class="nbt-key">{}</p><p class="nbt-x">{}{}</p>').format(_title(row), before, tokens)


def _title(row: Marked) -> str:
    trained = sum(flag for _, flag in row.pieces)
    return f"{shown(row.row, 40)}{', ' * bool(row.why)}{shown(row.why, 100)}: {len(row.pieces):,} tokens, {trained:,} of them trained"
