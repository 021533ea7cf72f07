"""What is measured as a run goes: the word for overfitting, the best step, the pace; and what is left of it when a run goes back."""

import math

import pytest

from nbtune import events as ev
from nbtune_widgets import run_html, run_text
from nbtune_widgets.looks import best_look, gap, gap_text, overfitting_since
from nbtune_widgets.pace import PARTS, Pace
from nbtune_widgets.progress import Progress
from tests.widgets.fake_run import FakeRun, plausible_events


def look(step, loss, train, *, best=False):
    return ev.Evaluation(step=step, epoch=1.0, loss=loss, metrics={"accuracy": 0.5}, num_rows=8, seconds=1.0, best=best, train_loss=train)


def looks(*losses, train=(1.0, 0.8, 0.6, 0.4, 0.3, 0.2)):
    return [look(20 * index, loss, falling) for index, (loss, falling) in enumerate(zip(losses, train, strict=False), start=1)]


def step_of(step: int, **changes) -> ev.Step:
    values = {"epoch": 0.1, "loss": 1 / step, "learning_rate": 1e-3, "grad_norm": 1.0, "num_tokens": step, "seconds": float(step)}
    return ev.Step(**({"step": step, "tokens_per_second": 1.0, "memory_bytes": 1} | values | changes))


def folded(*events) -> Progress:
    progress = Progress()
    for event in events:
        progress.add(event)
    return progress


STARTED = next(event for event in plausible_events(100) if event.type == "started")


@pytest.mark.parametrize(
    ("losses", "since"),
    [
        ((1.0, 0.9, 0.95, 1.0), 40),
        ((1.0, 0.9, 0.85, 0.9, 0.95, 1.1), 60),
        ((1.0, 0.9, 1.2), None),  # one look may be chance
        ((1.0, 0.9, 1.2, 0.89), None),  # it came back
        ((1.0, 0.9, 0.905, 0.908), None),  # less than 1 % above the best is noise
        ((1.0, 0.9, 0.8, 0.7), None),
        ((1.0, 1.1), None),
        ((), None),
    ],
)
def test_overfitting_is_said_after_two_looks_above_the_best_while_the_train_loss_falls(losses, since):
    assert overfitting_since(looks(*losses)) == since


def test_a_dev_loss_that_rises_with_the_train_loss_is_not_called_overfitting():
    assert overfitting_since(looks(1.0, 0.9, 1.5, 2.0, train=(1.0, 0.9, 1.4, 1.9))) is None


@pytest.mark.parametrize("train", [(math.nan,) * 4, (1.0, math.nan, 0.5, math.nan)])
def test_nothing_is_said_where_the_train_loss_is_not_known(train):
    assert gap_text(looks(1.0, 0.9, 1.0, 1.1, train=train)) == ""
    assert gap(looks(1.0, train=(math.nan,))) is None


def test_a_dev_loss_that_became_nan_neither_breaks_the_rule_nor_becomes_the_best():
    assert overfitting_since(looks(math.nan, 0.9, 1.0, 1.1)) == 40
    assert overfitting_since(looks(1.0, 0.9, math.nan, math.nan)) is None


def test_the_best_look_is_the_last_that_the_run_called_so():
    found = best_look([look(20, 1.0, 1.0, best=True), look(40, 0.9, 0.9, best=True), look(60, 1.1, 0.8)])
    assert found is not None
    assert found.step == 40
    assert best_look(looks(1.0, 0.9)) is None


def test_the_panel_and_the_saved_notebook_say_overfitting_best_step_gap_and_fill_alike():
    run = FakeRun(list(plausible_events(120, overfits=True)))
    for shown in (run_text(run), run_html(run)):
        assert "overfitting since step 60: dev loss rises while train loss falls" in shown
        assert "96 %" in shown
        assert "data 1 %, forward 31 %, backward 62 %, optimizer 6 %" in shown
    assert "best step 60" in run_text(run)
    assert ">60 (best)<" in run_html(run)
    assert run_html(run).count(">best</text>") == 2  # in the charts of dev loss and of the metric


def test_an_older_runs_folder_that_tells_less_is_shown_without_made_up_figures():
    step = step_of(1)
    text = run_text(FakeRun([STARTED, step, step_of(2), look(2, 1.0, math.nan)]))
    for word in ("fill", "gap", "best", "forward", "skipped"):
        assert word not in text


def test_what_is_expected_in_memory_is_shown_until_the_run_is_over():
    told = ev.Estimated(peak_memory_bytes=2_000_000_000, seconds_per_epoch=9.0)
    events = [told, STARTED, step_of(1, memory_bytes=1_000_000_000)]
    assert "1.0 GB of 2.0 GB expected" in run_text(FakeRun(events))
    corrected = ev.Estimated(peak_memory_bytes=1_200_000_000, seconds_per_epoch=9.0, measured_steps=3)
    assert "1.0 GB of 1.2 GB expected" in run_text(FakeRun([*events, corrected]))
    over = run_text(FakeRun([*events, ev.Finished(step=1, summary={"peak_memory_bytes": 1_100_000_000})]))
    assert "1.1 GB" in over
    assert "expected" not in over


def test_the_pace_leaves_out_the_first_step_which_warms_up():
    pace = Pace()
    for number in range(1, 6):
        slow = 100.0 if number == 1 else 0.0
        pace.add(step_of(number, fill=0.5 if number == 1 else 0.9, seconds=slow + number, forward_seconds=slow + 0.2, data_seconds=0.1))
    assert pace.fill == pytest.approx(0.9)
    assert pace.parts == pytest.approx(dict(zip(PARTS, (0.1, 0.2, 0.0, 0.0), strict=True)))


def test_skipped_updates_are_counted_and_those_done_again_only_once():
    progress = folded(STARTED, *(step_of(step, skipped=step in {3, 7}) for step in range(1, 9)))
    assert progress.skipped == [3, 7]
    progress.add(ev.Resumed(step=5))
    assert progress.skipped == [3]
    for step in range(6, 9):
        progress.add(step_of(step, skipped=step == 7))
    assert progress.skipped == [3, 7]
    assert "skipped updates 2" in run_text(FakeRun([STARTED, *(step_of(step, skipped=step < 3) for step in range(1, 4))]))


def test_a_run_that_goes_back_loses_what_came_after_and_says_where_it_went_on():
    events = [event for event in plausible_events(60) if event.type != "finished"]
    progress = folded(*events, ev.Control(step=55, action="set", values={"learning_rate": 1e-4}))
    progress.rewound = False
    progress.add(ev.Resumed(step=40))
    assert progress.rewound
    assert [curve.xs[-1] for curve in progress.curves] == [40, 40, 40, 40]
    assert [item.step for item in progress.looks] == [20, 40]
    assert {sample.step for sample in progress.samples} == {20, 40}
    assert progress.steps_done == 40
    marks = [(mark.step, mark.text) for mark in progress.marks]
    assert marks == [(55, "learning_rate = 1e-4"), (40, "went on from its checkpoint")]  # the setting is made again without a word
    assert "step 40: went on from its checkpoint" in run_text(FakeRun([*events, ev.Resumed(step=40)]))


@pytest.mark.parametrize(
    "end", [ev.Stopped(step=40, summary={"seconds": 1.0}), ev.Failed(step=40, kind="RuntimeError", message="out of memory")]
)
@pytest.mark.parametrize("order", [("started", "resumed"), ("resumed", "started"), ("resumed",)])
def test_a_run_that_is_resumed_after_its_end_is_running_again(end, order):
    events = [event for event in plausible_events(60) if event.type != "finished"]
    again = {"started": STARTED, "resumed": ev.Resumed(step=40)}
    progress = folded(*events, end, ev.Phase(text="loading smollm2-135m"), *(again[kind] for kind in order))
    assert progress.status == "running"
    assert not progress.over
    assert progress.failed is None
    assert progress.seconds is not None
    assert progress.seconds > 1.0
    progress.add(step_of(41))
    assert progress.loss.xs[-2:].tolist() == [40, 41]


def test_the_time_left_after_a_resume_is_told_from_the_steps_since():
    progress = folded(STARTED, *(step_of(step) for step in range(1, 51)), ev.Resumed(step=50))
    assert progress.seconds_left is None
    for step in (51, 52, 53):
        progress.add(step_of(step, seconds=50.0 + 10 * (step - 50)))
    assert progress.seconds_left == pytest.approx(47 * 10)


def test_pause_and_resume_set_the_status_and_a_stop_that_waits_is_not_forgotten():
    progress = folded(STARTED, step_of(1), ev.Control(step=1, action="pause"))
    assert progress.status == "paused"
    progress.add(ev.Control(step=1, action="resume"))
    assert progress.status == "running"
    progress.ask("stop")
    progress.add(step_of(2))
    assert progress.status == "stopping"


def test_what_was_asked_for_waits_until_it_takes_effect():
    progress = folded(STARTED, step_of(1))
    progress.ask("evaluate")
    progress.ask("pause")
    progress.add(ev.Control(step=1, action="evaluate"))
    assert progress.asked == {"pause"}
    assert progress.controls["evaluate"] == 1
    progress.add(ev.Finished(step=1, summary={}))
    assert progress.asked == frozenset()


def test_a_setting_that_was_changed_is_answered_and_marked_at_its_step():
    progress = folded(STARTED, step_of(1), ev.Control(step=1, action="set", values={"learning_rate": 0.00025, "eval_steps": 5}))
    assert progress.answer is not None
    assert progress.answer.text == "learning_rate = 2.5e-4, eval_steps = 5 after step 1"
    assert progress.marks[0].text == "learning_rate = 2.5e-4, eval_steps = 5"


def test_the_peak_rate_follows_what_was_set_and_what_the_run_lowered_itself():
    progress = folded(STARTED, step_of(1), ev.Control(step=1, action="set", values={"learning_rate": 5e-4}))
    assert progress.peak_rate == 5e-4
    progress.add(ev.Control(step=1, action="set", values={"eval_steps": 5}))
    progress.add(ev.Control(step=0, action="back_off", values={"learning_rate": 2.5e-4}))
    assert progress.peak_rate == 2.5e-4


def test_an_early_end_and_the_step_that_was_kept_are_said_beside_the_status():
    summary = {"ended_early": "no better look at dev since step 20", "checkpoint_step": 20}
    run = FakeRun([STARTED, step_of(1), ev.Finished(step=40, summary=summary)])
    said = "early, no better look at dev since step 20; the best is kept, of step 20"
    assert f"finished ({said})" in run_text(run)
    assert f"finished: {said}" in run_html(run)
