"""What is asked of a running loop takes effect at the next step, is told as an event, and changes nothing else."""

import time
from pathlib import Path

import pytest
import torch

import nbtune
from nbtune.errors import RunError, SpecError
from nbtune.events import Checkpoint, Control, Evaluation, Sample
from tests.training.runs import bytes_of, start


def wait_until(true: object, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def at(run: nbtune.Run, step: int, do: object) -> None:
    run.listen(lambda event: do() if event.type == "step" and event.step == step else None)


def steps(run: nbtune.Run) -> int:
    return len(run.history["loss"].dropna())


def changes(run: nbtune.Run) -> list[Control]:
    return [event for event in run.events() if isinstance(event, Control) and event.action == "set"]


def test_a_paused_run_stands_still_and_then_ends_with_the_bytes_of_one_that_never_paused(folder: Path) -> None:
    whole = start(folder).wait()
    run = start(folder)
    at(run, 4, run.pause)
    wait_until(lambda: run.status == "paused")
    stood = steps(run)
    time.sleep(0.3)
    assert (steps(run), run.status) == (stood, "paused")
    run.resume()
    run.wait()
    assert run.status == "finished"
    assert bytes_of(run) == bytes_of(whole)


def test_a_paused_run_answers_and_can_be_stopped(folder: Path) -> None:
    run = start(folder, max_steps=50, eval_steps=50, save_steps=50)
    at(run, 3, run.pause)
    wait_until(lambda: run.status == "paused")
    run.evaluate()
    wait_until(lambda: any(isinstance(event, Evaluation) for event in run.events()))
    run.checkpoint()
    wait_until(lambda: any(isinstance(event, Checkpoint) for event in run.events()))
    run.stop()
    run.wait(90)
    assert run.status == "stopped"
    assert steps(run) == max(event.step for event in run.events() if isinstance(event, Checkpoint)) < 10


def test_a_learning_rate_that_is_set_holds_from_the_next_step_on_and_its_course_goes_on(folder: Path) -> None:
    run = start(folder, lr_scheduler_type="linear", warmup_steps=0, max_steps=20)
    at(run, 5, lambda: run.set(lr=5e-4, max_grad_norm=0.5))
    run.wait()
    (change,) = [event for event in run.events() if isinstance(event, Control)]
    assert change.values == {"learning_rate": 5e-4, "max_grad_norm": 0.5}
    assert change.step in {5, 6}  # a step is told when the next one is done
    rates = run.history["learning_rate"].tolist()
    assert rates == pytest.approx([(1e-3 if number < change.step else 5e-4) * (1 - number / 20) for number in range(20)])


def test_what_is_asked_while_the_run_is_prepared_holds_before_the_first_step(folder: Path) -> None:
    run = start(folder, lr_scheduler_type="constant", warmup_steps=0, max_steps=3)
    run.listen(lambda event: ask() if event.type == "started" else None)

    def ask() -> None:
        run.set(learning_rate=5e-4)
        run.pause()

    wait_until(lambda: run.status == "paused")
    run.evaluate()
    wait_until(lambda: any(isinstance(event, Evaluation) for event in run.events()))
    assert (steps(run), run.status) == (0, "paused")
    run.resume()
    run.wait()
    assert run.history["learning_rate"].dropna().tolist() == [5e-4] * 3
    controls = [(event.step, event.action) for event in run.events() if isinstance(event, Control)]
    assert controls == [(0, "set"), (0, "pause"), (0, "evaluate"), (0, "resume")]


def test_a_run_that_is_stopped_before_its_first_step_saves_nothing(folder: Path) -> None:
    run = start(folder)
    run.listen(lambda event: run.stop() if event.type == "started" else None)
    assert run.wait().status == "stopped"
    assert (steps(run), run.summary["steps"], (run.folder / "checkpoints").exists()) == (0, 0, False)


def test_a_run_whose_best_look_came_before_its_first_step_ends_as_it_began(folder: Path) -> None:
    run = start(folder, max_steps=2, eval_steps=2, metric_for_best_model="metric", load_best_model_at_end=True)  # no answer is right
    run.listen(lambda event: run.evaluate() if event.type == "started" else None)
    run.wait()
    assert run.summary["best_step"] == run.summary["checkpoint_step"] == 0
    base = nbtune.models.load(folder, dtype="float32")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(run.model.model(ids).logits, base.model(ids).logits)


@pytest.mark.parametrize("launch", ["thread", "process"])
def test_what_is_asked_takes_effect_at_the_next_step_wherever_the_run_is(folder: Path, launch: str) -> None:
    run = start(folder, launch=launch, max_steps=100_000, eval_steps=100_000, save_steps=100_000)
    try:
        wait_until(lambda: steps(run) > 2)
        for number in range(1, 6):
            run.set(learning_rate=number * 1e-4)
            told = steps(run)  # one step less than were done, and the one that is being done
            wait_until(lambda number=number: len(changes(run)) == number)
            assert changes(run)[-1].step <= told + 2
    finally:
        run.stop()
    run.wait(90)


def test_looking_sampling_and_saving_happen_when_they_are_asked_for(folder: Path) -> None:
    run = start(folder, max_steps=20, eval_steps=20, save_steps=20)
    at(run, 2, run.evaluate)
    at(run, 6, run.sample)
    at(run, 10, run.checkpoint)
    run.wait()
    kinds = (Evaluation, Sample, Checkpoint)
    found = {kind: [event.step for event in run.events() if isinstance(event, kind)] for kind in kinds}
    assert found[Evaluation][0] in {2, 3}
    assert found[Sample][1] in {6, 7}  # the first came with the look
    assert found[Checkpoint][0] in {10, 11}


def test_a_setting_that_cannot_be_is_refused_at_once_and_changes_nothing(folder: Path) -> None:
    run = start(folder, max_steps=400)
    with pytest.raises(SpecError, match=r"learning_rate must be at most 1\.0, not 5\.0"):
        run.set(learning_rate=5.0)
    with pytest.raises(SpecError, match="r cannot be changed while a run goes on"):
        run.set(r=4)
    with pytest.raises(SpecError, match="unknown option 'learning_rat'"):
        run.set(learning_rat=1e-3)
    with pytest.raises(SpecError, match="nothing is set"):
        run.set()
    run.stop()
    run.wait()
    assert not [event for event in run.events() if isinstance(event, Control) and event.action == "set"]
    with pytest.raises(RunError, match="is stopped, not running"):
        run.set(learning_rate=1e-4)


def test_samples_come_at_their_own_interval(folder: Path) -> None:
    run = start(folder, sample_steps=4, eval_steps=6).wait()
    assert [event.step for event in run.events() if isinstance(event, Sample)] == [4, 8, 12]
    assert [event.step for event in run.events() if isinstance(event, Evaluation)] == [6, 12]


def test_a_run_that_gets_no_better_ends_early_with_its_best_checkpoint(folder: Path) -> None:
    run = start(
        folder,
        max_steps=40,
        eval_steps=2,
        save_steps=2,
        learning_rate=0.5,
        warmup_steps=4,
        early_stopping_patience=3,
        load_best_model_at_end=True,
    ).wait()
    looks = [event for event in run.events() if isinstance(event, Evaluation)]
    best = min(looks, key=lambda event: event.loss)
    assert [event.step for event in looks if event.best][-1] == best.step == run.summary["best_step"] == run.summary["checkpoint_step"]
    assert run.summary["steps"] == best.step + 6 < 40
    assert "no better look at dev since" in run.summary["ended_early"]
    assert run.summary["scores"] == best.scores != looks[-1].scores
    assert (run.folder / "checkpoints" / f"step-{best.step:06d}").is_dir()
    again = nbtune.open(run.id)
    assert again.generate(["Ticket: the parcel\nWord:"], 8) == run.generate(["Ticket: the parcel\nWord:"], 8)


def test_the_train_loss_beside_a_look_is_the_mean_a_trained_token_since_the_look_before(folder: Path) -> None:
    run = start(folder, max_steps=6, eval_steps=3).wait()
    looks = [event for event in run.events() if isinstance(event, Evaluation)]
    losses = run.history["loss"].tolist()
    for number, look in enumerate(looks):
        low, high = min(losses[3 * number : 3 * number + 3]), max(losses[3 * number : 3 * number + 3])
        assert low <= look.train_loss <= high
