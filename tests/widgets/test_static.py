"""A run in a saved notebook: readable, safe and small, without a kernel, scripts or the network."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nbtune import events as ev
from nbtune_widgets import run_card_html, run_figure, run_html, run_text
from nbtune_widgets.formats import NOTHING, size
from tests.widgets.fake_run import FakeRun, plausible_events

NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class _Tags(HTMLParser):
    """All tags and attributes, and all visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._open.remove(tag)

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data


def safe(html: str) -> _Tags:
    """The parsed page, which holds nothing that runs or loads."""
    page = _Tags(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "a", "form", "foreignobject", "use"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "href"}]
    assert "://" not in html
    return page


def nasty_run() -> FakeRun:
    return FakeRun(
        [
            ev.Phase(text=NASTY),
            *(event for event in plausible_events(20, every=5, metric=NASTY) if event.type != "finished"),
            ev.Sample(step=20, row=0, prompt=NASTY, output=NASTY + "\x1b[31m\u202e", expected=NASTY),
            ev.Note(level="warning", text=NASTY),
            ev.Failed(step=20, kind="RuntimeError", message=NASTY, hint=NASTY, traceback=NASTY),
        ],
        name=NASTY,
        method=NASTY,
    )


@pytest.mark.parametrize("draw", [run_html, run_card_html])
def test_whatever_names_data_and_errors_hold_is_shown_as_text(draw):
    page = safe(draw(nasty_run()))
    assert NASTY[:20] in page.text


def test_characters_that_hide_or_reorder_text_are_made_visible():
    html, text = run_html(nasty_run()), run_text(nasty_run())
    for shown in (html, text):
        assert not re.search("[\x1b\u202e]", shown)
    assert "\ufffd" in html


def test_a_run_of_fifty_thousand_steps_is_drawn_in_under_sixty_kilobytes():
    assert len(run_html(FakeRun(list(plausible_events(50_000, every=100)))).encode()) < 60_000


def test_the_figures_curves_and_samples_of_a_finished_run_are_there_without_styles():
    page = safe(run_html(FakeRun(list(plausible_events()))))
    for words in (
        "tickets_lora",
        "finished",
        "120 of 120",
        "1 min 36 s",
        "2.44 M of 137.0 M",
        "On disk 9.8 MB",
        "accuracy",
        "Samples from dev",
    ):
        assert words in page.text
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert [chart["aria-label"].split(" by step")[0] for chart in charts] == ["Loss", "Dev accuracy", "Learning rate"]
    rows = re.findall(r"<tr><td[^>]*>(\d+)</td>", run_html(FakeRun(list(plausible_events()))))
    assert rows[:6] == ["20", "40", "60", "80", "100", "120"]


def test_a_run_that_trained_nothing_says_what_it_is_and_how_large():
    summary = {"trainable_parameters": 32_768, "total_parameters": 135_104, "adapter_bytes": 132_700}
    note = ev.Note(level="info", text="combined by cat: one (1), two (1); nothing was trained")
    page = safe(run_html(FakeRun([note, ev.Finished(step=0, summary=summary)])))
    for words in ("finished", "combined by cat: one (1)", "32,768 of 135.1 k", "On disk 133 kB"):
        assert words in page.text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (None, NOTHING),
        (0, NOTHING),
        (512, "512 B"),
        (62_400, "62.4 kB"),
        (132_700, "133 kB"),
        (12_345_678, "12.3 MB"),
        (1_965_000_000, "2.0 GB"),
    ],
)
def test_bytes_are_told_in_the_unit_that_suits_them(number, words):
    assert size(number) == words


def test_a_failed_run_says_why_and_what_to_do():
    run = FakeRun(
        [*list(plausible_events(10))[:8], ev.Failed(step=4, kind="ModelError", message="out of memory", hint="use --quantization nf4")]
    )
    for shown in (safe(run_html(run)).text, run_text(run)):
        assert "failed" in shown
        assert "out of memory" in shown
        assert "use --quantization nf4" in shown


def test_a_loss_that_became_nan_is_said_and_leaves_a_gap():
    events = [event for event in plausible_events(60) if event.type in {"started", "step"}]
    broken = [event if event.type == "started" or event.step < 40 else ev.parse_event(event.to_json()) for event in events]
    last = broken[-1]
    bad = ev.Step(**{**vars(last), "step": 61, "loss": math.nan})
    page = safe(run_html(FakeRun([*broken, bad])))
    assert "NaN" in page.text
    paths = [attributes["d"] for tag, attributes in page.tags if tag == "path"]
    assert not any("nan" in path for path in paths)


def test_a_run_of_which_nothing_is_known_yet_is_drawn_and_says_so():
    assert "starting" in safe(run_html(FakeRun())).text
    assert run_text(FakeRun([ev.Phase(text="loading smollm2-135m")])) == "tickets_lora · lora · starting (loading smollm2-135m)"
    assert "waiting for other_run" in run_text(FakeRun([ev.Queued(ahead=("other_run",))]))


def test_a_run_whose_process_is_gone_is_not_shown_as_running():
    run = FakeRun([event for event in plausible_events(10) if event.type != "finished"])
    assert "running" in run_text(run)
    run.status = "interrupted"
    assert "interrupted" in run_text(run)


def test_the_card_is_one_line_with_the_score_the_time_and_what_was_trained():
    card = run_card_html(FakeRun(list(plausible_events())))
    page = safe(card)
    for words in ("lora", "finished", "120 of 120", "1 min 36 s", "0.887", "2.44 M"):
        assert words in page.text
    assert "<svg" not in card
    assert card.count("<p") == 1


def test_the_kept_figure_has_each_curve_and_reads_no_markup():
    figure = run_figure(nasty_run())
    assert [trace.name.split(" ")[0] for trace in figure.data] == ["train", "train", "dev", "dev", "learning", "best", "best"]
    assert len(figure.data[0].x) == 20
    assert "<script" not in figure.to_json()


def test_the_kept_figure_rings_the_best_step_on_both_curves_of_dev():
    events = [replace(event, best=event.step == 60) if event.type == "evaluation" else event for event in plausible_events()]
    figure = run_figure(FakeRun(events))
    curves = {trace.yaxis: trace for trace in figure.data if trace.name.startswith("dev ")}
    rings = {trace.yaxis: trace for trace in figure.data if trace.name == "best step"}
    assert rings.keys() == curves.keys()
    for axis, ring in rings.items():
        assert list(zip(ring.x, ring.y, strict=True)) == [(60, dict(zip(curves[axis].x, curves[axis].y, strict=True))[60])]
