"""A run as static content: what stands in a saved notebook when neither a kernel, nor scripts, nor the network are there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from markupsafe import Markup

from nbtune_widgets.curves import Line, Signs, curves_svg
from nbtune_widgets.formats import (
    NOTHING,
    count,
    distinct,
    duration,
    figure,
    fine_duration,
    in_use,
    one_line,
    rate,
    share,
    shown,
    size,
    tail,
)
from nbtune_widgets.looks import gap, gap_text
from nbtune_widgets.markup import figures, join, mark, messages, page, table
from nbtune_widgets.progress import Progress
from nbtune_widgets.protocols import RunView
from nbtune_widgets.series import Points, smooth, thin

__all__ = ["loss_lines", "progress_html", "run_card_html", "run_html", "run_text"]

EVALUATIONS: Final = 12
MARKS: Final = 12
SMOOTH_FROM: Final = 30


def run_html(run: RunView) -> str:
    """The whole run: figures, curves, the looks at dev, samples, notes and the error, if it ended by one.

    No script, no address; real tables and text that read without styles. Under 60 kB however long the run.
    """
    return progress_html(run, Progress.of(run))


def progress_html(run: RunView, progress: Progress) -> str:
    """`run_html` of a progress that is folded already."""
    parts = [
        _head(run, progress),
        figures(_figures(progress)),
        _small(progress),
        messages([gap_text(progress.looks)] if gap_text(progress.looks) else [], "warning", "Warning"),
        _error(progress),
        _curves(progress),
        _looks(progress),
        _samples(progress),
        messages((note.text for note in progress.notes if note.level == "warning"), "warning", "Warning"),
        messages((note.text for note in progress.notes if note.level != "warning"), "note", ""),
        messages([marks_text(progress)] if progress.marks else [], "note", ""),
    ]
    return page(f"Run {run.name}", join(parts))


def run_card_html(run: RunView) -> str:
    """The run on one line, for a cell's result."""
    progress = Progress.of(run)
    words = [
        f"{name.lower()} {value}"
        for name, value in [*_figures(progress), *_small_figures(progress)]
        if name in {"Time", "Trained parameters"} or name == _score_name(progress)
    ]
    return page(f"Run {run.name}", _head(run, progress, f"step {_steps(progress)}", *words))


def run_text(run: RunView) -> str:
    """The run in a few lines of plain text."""
    progress = Progress.of(run)
    lines = [
        f"{one_line(run.name)} · {one_line(run.method)} · {progress.status}" + (f" ({one_line(progress.phase)})" if progress.phase else "")
    ]
    if progress.step or progress.started:
        lines.append("  " + " · ".join(f"{name.lower()} {value}" for name, value in _figures(progress)))
        lines.append("  " + " · ".join(f"{name.lower()} {value}" for name, value in _small_figures(progress)))
        lines.extend([f"  {gap_text(progress.looks)}"] if gap_text(progress.looks) else [])
    if progress.failed:
        lines.append(f"  {progress.failed.kind}: {shown(progress.failed.message, 500)}")
        lines.extend([f"  → {shown(progress.failed.hint, 500)}"] if progress.failed.hint else [])
    lines.extend(f"  {'warning: ' if note.level == 'warning' else ''}{one_line(note.text, 300)}" for note in progress.notes)
    lines.extend([f"  {marks_text(progress)}"] if progress.marks else [])
    return "\n".join(lines)


def loss_lines(progress: Progress) -> list[Line]:
    """The loss chart's curves; a long noisy loss is drawn smoothed over its raw values."""
    raw: Points = (progress.loss.xs, progress.loss.ys)
    lines = [Line("train", raw)]
    if len(raw[0]) >= SMOOTH_FROM:
        lines = [Line("train, each step", thin(*raw, 240), faint=True), Line("train, smoothed", (raw[0], smooth(raw[1])))]
    return [*lines, Line("dev", progress.dev_loss.points(), "b", "5 3", dots=True)]


def _head(run: RunView, progress: Progress, *words: str) -> Markup:
    status = progress.status if not progress.phase else f"{progress.status}: {shown(progress.phase, 120)}"
    said = [shown(run.method, 60), *words]
    return Markup('<p class="nbt-head"><span class="nbt-name">{}</span> {} <span class="nbt-pill">{}</span></p>').format(
        shown(run.name, 80), join(Markup('<span class="nbt-dim">{}</span> ').format(word) for word in said), status
    )


def _steps(progress: Progress) -> str:
    total = progress.total_steps
    return f"{progress.steps_done:,}" + (f" of {total:,}" if total is not None else "")


def _score_name(progress: Progress) -> str:
    return f"Dev {one_line(progress.metric, 40)}" if progress.metric else ""


def _figures(progress: Progress) -> list[tuple[str, str]]:
    """What one looks for first."""
    pairs = [("Steps", _steps(progress))]
    if progress.step:
        pairs += [
            ("Loss", figure(progress.step.loss)),
            ("Dev loss", figure(progress.dev_loss.last)),
            (_score_name(progress) or "Score", figure(progress.score.last)),
            ("Best step", NOTHING if progress.best_step is None else f"{progress.best_step:,}"),
            ("Time", duration(progress.seconds)),
        ]
    if progress.seconds_left is not None:
        pairs.append(("Left", duration(progress.seconds_left)))
    return _known(pairs)


def _small_figures(progress: Progress) -> list[tuple[str, str]]:
    """What one looks up."""
    pairs: list[tuple[str, str]] = []
    if progress.step:
        step, pace = progress.step, progress.pace
        pairs += [
            ("Gap, dev less train", figure(gap(progress.looks))),
            ("Tokens", f"{count(step.num_tokens)}, {count(step.tokens_per_second)}/s"),
            ("Fill of the batches", share(pace.fill)),
            ("A step", parts_text(pace.parts)),
            ("Skipped updates", count(len(progress.skipped)) if progress.skipped else NOTHING),
            (
                "Peak memory",
                in_use(progress.summary.get("peak_memory_bytes") or progress.peak_memory_bytes, progress.expected_memory_bytes),
            ),
        ]
    if before := progress.summary.get("scores_before"):
        after = progress.summary.get("scores", {})
        pairs += [
            (f"{name.removeprefix('eval_').capitalize()} of dev", f"{figure(value)} before, {figure(after.get(name))} after")
            for name, value in before.items()
            if name != "eval_loss"
        ]
    if kept := progress.summary.get("retained"):
        pairs.append(("Retained loss", f"{figure(kept['loss_before'])} before, {figure(kept['loss_after'])} after"))
    if counts := _counts(progress):
        pairs.append(("Trained parameters", f"{count(counts[0])} of {count(counts[1])}"))
    pairs.append(("On disk", size(progress.summary.get("adapter_bytes"))))
    if told := progress.started:
        pairs += [("Rows", f"{told.num_rows:,}"), ("On", f"{told.device}, {told.dtype}")]
    return _known(pairs)


def _counts(progress: Progress) -> tuple[int, int] | None:
    """(trained, all) parameters: those told at the end, when what is fitted to states is known, or at the beginning."""
    known = (asdict(progress.started) if progress.started else {}) | progress.summary
    return (known["trainable_parameters"], known["total_parameters"]) if "total_parameters" in known else None


def _known(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in pairs if value != NOTHING]


def _small(progress: Progress) -> Markup:
    """The small figures on a line or two."""
    items = [Markup('<span><span class="nbt-dim">{}</span> {}</span>').format(name, value) for name, value in _small_figures(progress)]
    return Markup('<p class="nbt-small">{}</p>').format(join(items, '<span class="nbt-sep"> · </span>')) if items else Markup("")


def parts_text(parts: Mapping[str, float]) -> str:
    """Where a step's time goes: "820 ms: data 1 %, forward 33 %, backward 60 %, optimizer 6 %"."""
    whole = sum(parts.values())
    if not whole > 0:
        return NOTHING
    return f"{fine_duration(whole)}: " + ", ".join(f"{part} {share(seconds / whole)}" for part, seconds in parts.items())


def marks_text(progress: Progress) -> str:
    """What happened at which step, the last dozen of it: "step 40: learning_rate = 1e-4 · step 60: went on from its checkpoint"."""
    return " · ".join(f"step {mark.step:,}: {one_line(mark.text, 120)}" for mark in progress.marks[-MARKS:])


def _error(progress: Progress) -> Markup:
    if progress.failed is None:
        return Markup("")
    failed = progress.failed
    text = shown(failed.message) + (f"\n→ {shown(failed.hint)}" if failed.hint else "")
    trace = (
        Markup("<details><summary>traceback</summary><pre>{}</pre></details>").format(tail(failed.traceback, 4000))
        if failed.traceback
        else Markup("")
    )
    return messages([text], "error", failed.kind) + trace


def _curves(progress: Progress) -> Markup:
    if not len(progress.loss):
        return Markup("")
    signs = Signs(progress.best_step, tuple(mark.step for mark in progress.marks[-MARKS:]))
    charts = [curves_svg("Loss", loss_lines(progress), signs=signs)]
    if len(progress.score):
        line = Line(progress.metric, progress.score.points(), "c", "2 3" if len(progress.score) > 1 else "", dots=True)
        charts.append(curves_svg(f"Dev {one_line(progress.metric, 40)}", [line], width=300, signs=signs))
    rates = Line("last", progress.learning_rate.points(), "d", of_rates=True)
    charts.append(curves_svg("Learning rate", [rates], width=300, small=True, signs=signs))
    return Markup('<div class="nbt-curves">{}</div>').format(join(charts))


def _looks(progress: Progress) -> Markup:
    looks = progress.looks
    if not looks:
        return Markup("")
    told = all(math.isfinite(look.train_loss) for look in looks)
    train = dict(zip(progress.loss.xs, smooth(progress.loss.ys), strict=True))
    scores = dict(zip(*progress.score.points(), strict=True))
    rates = dict(zip(*progress.learning_rate.points(), strict=True))
    kept = {round(index * (len(looks) - 1) / max(1, EVALUATIONS - 1)) for index in range(EVALUATIONS)} & set(range(len(looks)))
    kept |= {index for index, look in enumerate(looks) if look.step == progress.best_step}
    rows = [
        (
            f"{look.step:,}" + (" (best)" if look.step == progress.best_step else ""),
            figure(look.train_loss if told else train.get(look.step)),
            figure(look.loss),
            figure(scores.get(look.step)),
            rate(rates.get(look.step)),
        )
        for look in (looks[index] for index in sorted(kept))
    ]
    head = "train loss since the look before" if told else "train loss, smoothed"
    heads = ["step", head, "dev loss", f"dev {one_line(progress.metric or 'score', 40)}", "learning rate"]
    body = table("", heads, rows, numeric=frozenset(range(5)))
    return Markup("<details><summary>The curves as a table</summary>{}</details>").format(body)


def _samples(progress: Progress) -> Markup:
    if not progress.samples:
        return Markup("")
    prompts = distinct([sample.prompt for sample in progress.samples])
    rows = [
        (
            f"{sample.step:,}",
            _text(prompt),
            _text(shown(sample.expected, 400)),
            _text(shown(sample.output, 400)),
            mark(sample.output.strip() == sample.expected.strip(), ("as expected", "not as expected")),
        )
        for sample, prompt in zip(reversed(progress.samples), reversed(prompts), strict=True)
    ]
    return table("Samples from dev", ["step", "prompt", "expected", "output", ""], rows, numeric=frozenset({0}))


def _text(text: str) -> Markup:
    return Markup('<span class="nbt-x">{}</span>').format(text.strip())
