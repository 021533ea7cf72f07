"""What was stopped, killed or forked goes on bit for bit as if nothing had happened."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import nbtune
from nbtune.errors import RunError, SpecError
from nbtune.events import Control, Note, Resumed
from tests.training.killed import MOMENTS, in_child, run_and_die, run_on
from tests.training.runs import OPTIONS, bytes_of, figures, start, steps_done_again


def stop_after(run: nbtune.Run, step: int) -> None:
    run.listen(lambda event: run.stop() if event.type == "step" and event.step == step else None)
    run.wait()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {}),
        ("lora", {"optim": "adafactor", "lr_scheduler_type": "warmup_stable_decay", "neftune_noise_alpha": 5.0}),
        ("lora", {"optim": "sgd", "gradient_accumulation_steps": 2, "loraplus_lr_ratio": 4.0}),
        ("pissa", {"r": 4}),
        ("adalora", {"tinit": 1, "tfinal": 3}),
        ("adalora", {"tinit": 1, "tfinal": 9, "optim": "adafactor"}),
        ("last-blocks", {"num_blocks": 1}),
        ("head", {}),
        ("full", {"dtype": "bfloat16"}),
    ],
)
def test_a_run_that_was_stopped_and_resumed_ends_with_the_bytes_of_one_that_was_not(folder: Path, method: str, options: dict) -> None:
    whole = start(folder, method, **options).wait()
    run = start(folder, method, **options)
    stop_after(run, 4)
    assert run.status == "stopped"
    assert run.resume().wait().status == "finished"
    assert bytes_of(run) == bytes_of(whole)
    assert figures(run) == figures(whole)
    assert run.summary["num_tokens"] == whole.summary["num_tokens"]
    assert steps_done_again(run.events()) == 0


def test_a_run_goes_on_with_as_many_threads_as_it_began_with(folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole = start(folder).wait()
        run = start(folder)
        stop_after(run, 4)
    finally:
        torch.set_num_threads(before)
    seen: set[int] = set()
    run.resume().listen(lambda event: seen.add(torch.get_num_threads()) if event.type == "step" else None)
    assert run.wait().status == "finished"
    assert seen == {2}
    assert bytes_of(run) == bytes_of(whole)


CONSTANT = {"lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> nbtune.Run:
    """The run that nobody kills; after its fourth step it is given another learning rate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBTUNE_HOME", str(tmp_path_factory.mktemp("whole")))
        run = start(folder, name="whole", **CONSTANT)
        run.listen(lambda event: run.set(learning_rate=5e-4) if event.type == "step" and event.step == 4 else None)
        return run.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, home: Path, whole: nbtune.Run, moment: str) -> None:
    count = {"inside a step": 8, "after a step was told": 8}.get(moment, 2)
    assert in_child(run_and_die, str(home), str(folder), (moment, count), CONSTANT) == -signal.SIGKILL
    killed = nbtune.open("killed")
    assert killed.status == "interrupted"
    assert in_child(run_on, str(home)) == 0
    killed = nbtune.open("killed")
    changes = [[event.step for event in run.events() if isinstance(event, Control) and event.action == "set"] for run in (whole, killed)]
    assert changes[0] == changes[1]
    assert bytes_of(killed) == bytes_of(whole)
    assert figures(killed) == figures(whole)
    assert steps_done_again(killed.events()) <= OPTIONS["save_steps"]
    assert sorted(path.name for path in (killed.folder / "checkpoints").iterdir()) == ["step-000009", "step-000012"]


def test_a_run_killed_before_its_first_checkpoint_starts_again(folder: Path, home: Path) -> None:
    whole = start(folder, name="whole").wait()
    assert in_child(run_and_die, str(home), str(folder), ("inside a step", 2), {"learning_rate": 5e-4}) == -signal.SIGKILL
    assert in_child(run_on, str(home)) == 0
    killed = nbtune.open("killed")
    assert [event.step for event in killed.events() if isinstance(event, Resumed)] == [0]
    assert killed.history.index.tolist() == whole.history.index.tolist()


def test_a_run_killed_before_its_rows_were_saved_is_listed_and_says_so(folder: Path, home: Path) -> None:
    assert in_child(run_and_die, str(home), str(folder), ("before its rows are saved", 1), {}) == -signal.SIGKILL
    (run,) = nbtune.runs()
    assert (run.name, run.status, run.summary, len(run.history)) == ("killed", "interrupted", {}, 0)
    with pytest.raises(RunError, match="ended before its rows were saved: nothing was trained"):
        run.resume()


def test_what_was_set_before_the_first_step_is_set_again_by_a_run_that_starts_again(folder: Path, home: Path) -> None:
    options = {"lr_scheduler_type": "constant", "warmup_steps": 0}
    whole = start(folder, name="whole", **options)
    whole.listen(lambda event: whole.set(learning_rate=5e-4) if event.type == "started" else None)
    whole.wait()
    assert in_child(run_and_die, str(home), str(folder), ("inside a step", 2), options, "started") == -signal.SIGKILL
    assert in_child(run_on, str(home)) == 0
    killed = nbtune.open("killed")
    assert killed.history["learning_rate"].tolist() == [5e-4] * 12
    assert bytes_of(killed) == bytes_of(whole)


def settings(run: nbtune.Run) -> list[tuple[int, dict[str, Any]]]:
    return [(event.step, event.values) for event in run.events() if isinstance(event, Control) and event.action == "set"]


def test_an_unchanged_fork_is_its_parent_bit_for_bit_and_so_is_what_was_done_to_it_later(folder: Path) -> None:
    parent = start(folder, max_steps=100, save_steps=20, save_total_limit=9, eval_steps=50)
    actions = {20: lambda: parent.set(learning_rate=2e-3), 60: lambda: parent.set(learning_rate=1e-4), 70: parent.evaluate}
    parent.listen(lambda event: actions.get(getattr(event, "step", 0), int)() if event.type == "step" else None)
    parent.wait()
    (early, _), (late, _) = settings(parent)
    assert early < 40 < late
    child = parent.fork(40)
    stop_after(child, 90)
    assert child.resume().wait().status == "finished"
    assert bytes_of(child, 100) == bytes_of(parent, 100)
    assert figures(child) == figures(parent)
    assert settings(child) == settings(parent)[1:]
    assert "nothing differs" in next(event.text for event in child.events() if isinstance(event, Note))
    grandchild = child.fork(60, launch="thread").wait()
    assert bytes_of(grandchild, 100) == bytes_of(parent, 100)


def test_a_changed_fork_goes_its_own_way_and_says_what_it_does_not_repeat(folder: Path) -> None:
    parent = start(folder, lr_scheduler_type="constant", warmup_steps=0, save_total_limit=4)
    actions = {2: 2e-3, 8: 1e-4}
    parent.listen(lambda event: parent.set(learning_rate=actions[event.step]) if event.type == "step" and event.step in actions else None)
    parent.wait()
    ((_, _), (late, _)) = settings(parent)
    child = parent.fork(6, lr=5e-4).wait()
    text = next(event.text for event in child.events() if isinstance(event, Note))
    assert f"learning_rate 0.002 → 0.0005, learning_rate 0.0001 after step {late} is not repeated" in text
    assert child.history["learning_rate"].tolist()[6:] == [5e-4] * 6


def test_a_changed_fork_says_what_differs_and_goes_on_from_there(folder: Path) -> None:
    parent = start(folder).wait()
    child = parent.fork(9, learning_rate=1e-5, max_steps=14, name="slower").wait()
    assert child.name == "slower"
    assert child.spec["parent"] == parent.id
    text = next(event.text for event in child.events() if isinstance(event, Note))
    assert "after step 9" in text
    assert "learning_rate 0.001 → 1e-05" in text
    assert child.history.index.tolist() == list(range(1, 15))
    assert child.history["loss"].tolist()[:9] == parent.history["loss"].tolist()[:9]
    assert child.history["learning_rate"].tolist()[9] < 1e-5


FIRST_IS_BEST: dict[str, Any] = {"eval_steps": 2, "save_steps": 2, "early_stopping_threshold": 1000.0}


def test_a_fork_behind_the_best_step_ends_with_the_best_of_its_parent(folder: Path) -> None:
    parent = start(folder, **FIRST_IS_BEST, load_best_model_at_end=True).wait()
    best = parent.summary["best_step"]
    assert best == 2
    child = parent.fork(12, max_steps=14).wait()
    assert (child.summary["best_step"], child.summary["checkpoint_step"], child.summary["steps"]) == (best, best, 14)
    assert bytes_of(child, best) == bytes_of(parent, best)
    assert child.summary["scores"] == parent.summary["scores"]
    grandchild = child.fork(14, max_steps=16).wait()
    assert grandchild.summary["checkpoint_step"] == best


@pytest.mark.parametrize(
    ("options", "changes"),
    [({}, {"load_best_model_at_end": True}), ({"load_best_model_at_end": True}, {"metric_for_best_model": "metric"})],
    ids=["not kept", "by another measure"],
)
def test_a_fork_looks_for_a_best_step_of_its_own_where_its_parent_s_is_gone_or_of_another_measure(
    folder: Path, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    parent = start(folder, **{**FIRST_IS_BEST, "save_steps": 12}, **options).wait()
    assert parent.summary["best_step"] == 2
    child = parent.fork(12, max_steps=14, **changes).wait()
    assert child.summary["best_step"] == child.summary["checkpoint_step"] == 14


def test_a_fork_that_cannot_be_is_refused_with_what_can(folder: Path) -> None:
    run = start(folder).wait()
    with pytest.raises(RunError, match="no checkpoint of step 5") as error:
        run.fork(5)
    assert "there are: 9, 12" in error.value.hint
    with pytest.raises(SpecError, match="r cannot differ in a fork: the checkpoint was trained with 8"):
        run.fork(9, r=4)
    with pytest.raises(SpecError, match="unknown option 'lerning_rate'"):
        run.fork(9, lerning_rate=1e-3)
    assert len(nbtune.runs()) == 1


def test_a_finished_run_is_not_resumed_and_one_in_use_neither(folder: Path) -> None:
    run = start(folder).wait()
    with pytest.raises(RunError, match="is finished"):
        run.resume()
    other = start(folder, max_steps=400)
    while not other.history.index.size:
        time.sleep(0.05)
    pid = os.fork()
    if pid == 0:  # another process: it sees the run's lock held
        try:
            nbtune.store.RunFolder(other.folder).take()
            os._exit(1)
        except RunError as error:
            os._exit(0 if "in use by another process" in str(error) else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    other.stop()
    other.wait()


def test_a_resumed_run_that_is_stopped_before_it_trains_keeps_what_it_had(folder: Path) -> None:
    run = start(folder)
    stop_after(run, 4)
    before = run.summary
    run.resume()
    run.stop()
    run.wait()
    assert run.status == "stopped"
    assert run.summary["steps"] >= before["steps"] > 0
    assert run.resume().wait().summary["steps"] == 12


def test_a_fork_with_other_batches_takes_them(folder: Path) -> None:
    run = start(folder).wait()
    fork = run.fork(9, per_device_train_batch_size=2, gradient_accumulation_steps=2, neftune_noise_alpha=5.0).wait()
    assert fork.status == "finished"
    assert fork.history["num_tokens"].tolist() == run.history["num_tokens"].tolist()


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(folder: Path) -> None:
    whole = start(folder).wait()
    run = start(folder)
    stop_after(run, 7)
    newest = max((run.folder / "checkpoints").iterdir())
    file = newest / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    run.resume().wait()
    notes = [event.text for event in run.events() if isinstance(event, Note)]
    assert any(newest.name in text and "adapter_model.safetensors is not what was written" in text for text in notes)
    assert bytes_of(run) == bytes_of(whole)
    assert figures(run) == figures(whole)
