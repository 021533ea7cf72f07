"""A run from its start to its end: events, folder, stop, queue, failure, and another process that opens it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nbtune
from nbtune.errors import NbtuneError, RunError, SpecError
from nbtune.events import Control, Evaluation, Sample, Step, parse_event
from tests.examples import echo_task, ticket_task


def losses(run: nbtune.Run) -> list[float]:
    return run.history["loss"].tolist()


def test_history_and_summary_hold_what_was_promised(folder: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, num_train_epochs=2, per_device_train_batch_size=8).wait()
    steps = 2 * -(-len(task.train) // 8)
    assert list(run.history.index) == list(range(1, steps + 1))
    assert {"loss", "learning_rate", "grad_norm", "num_tokens", "epoch", "seconds", "eval_loss", "eval_accuracy"} <= set(
        run.history.columns
    )
    assert run.history["epoch"].iloc[-1] == 2
    assert run.history["num_tokens"].is_monotonic_increasing
    promised = {
        "trainable_parameters",
        "total_parameters",
        "adapter_bytes",
        "steps",
        "num_tokens",
        "seconds",
        "peak_memory_bytes",
        "scores",
    }
    assert set(run.summary) == promised | {"best_step", "checkpoint_step"}
    assert run.summary["steps"] == steps
    assert run.summary["scores"]["eval_accuracy"] == run.history["eval_accuracy"].iloc[-1]
    samples = [event for event in run.events() if isinstance(event, Sample)]
    assert {event.row for event in samples} == {0, 1}
    assert all(parse_event(event.to_json()) == event for event in run.events())


def test_the_split_of_a_step_into_micro_batches_changes_no_loss(folder: Path) -> None:
    task = ticket_task()
    runs = [
        nbtune.finetune(
            "lora",
            task=task,
            model=folder,
            dtype="float32",
            max_steps=6,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )
        for size in (8, 4, 1)
    ]
    whole, *split = [losses(run.wait()) for run in runs]
    for other in split:
        assert other == pytest.approx(whole, abs=1e-4)


def test_packing_changes_no_loss(folder: Path) -> None:
    task = ticket_task()
    packed, padded = (
        losses(nbtune.finetune("lora", task=task, model=folder, dtype="float32", max_steps=6, packing=packing).wait())
        for packing in (True, False)
    )
    assert padded == pytest.approx(packed, abs=1e-4)


def test_stop_ends_the_run_at_the_next_step_with_a_checkpoint_that_can_be_used(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, num_train_epochs=500, eval_steps=1000)
    asked: list[int] = []

    def stop_at_five(event: object) -> None:
        if isinstance(event, Step) and event.step == 5 and not asked:
            asked.append(event.step)
            run.stop()

    run.listen(stop_at_five)
    run.wait()
    control = next(event for event in run.events() if isinstance(event, Control))
    assert run.status == "stopped"
    assert control.step <= 5 + 2  # values are read one step late
    assert run.summary["steps"] == control.step
    assert (run.folder / "checkpoints" / f"step-{control.step:06d}" / "adapter_model.safetensors").exists()
    assert len(nbtune.open(run.id).predict([{"text": "the parcel"}])) == 1


def test_only_the_newest_checkpoints_are_kept(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, max_steps=6, save_steps=1, save_total_limit=2).wait()
    assert [path.name for path in sorted((run.folder / "checkpoints").iterdir())] == ["step-000005", "step-000006"]
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "state.json"} == {
        path.name for path in (run.folder / "checkpoints" / "step-000006").iterdir()
    }


def test_one_run_at_a_time_on_a_device_and_the_others_queue_and_can_be_stopped_there(folder: Path) -> None:
    first = nbtune.finetune("lora", task=ticket_task(), model=folder, name="first", num_train_epochs=200, eval_steps=1000)
    second = nbtune.finetune("lora", task=ticket_task(), model=folder, name="second", max_steps=2)
    third = nbtune.finetune("lora", task=ticket_task(), model=folder, name="third", max_steps=2)
    assert second.status == third.status == "queued"
    third.stop()
    first.stop()
    second.wait()
    third.wait()
    assert [run.status for run in (first, second, third)] == ["stopped", "finished", "stopped"]
    assert third.summary == {}


def test_a_listener_that_raises_stops_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, max_steps=3)

    def broken(event: object) -> None:
        raise ZeroDivisionError

    run.listen(broken)
    assert run.wait().status == "finished"
    assert "a listener of run" in caplog.text


def test_what_fails_before_the_first_step_raises_in_wait_and_leaves_nothing_behind(folder: Path, home: Path) -> None:
    task = ticket_task()
    run = nbtune.finetune("lora", task=task, model=folder, target_modules=["q_prj"])
    with pytest.raises(SpecError, match="no module 'q_prj'"):
        run.wait()
    assert run.status == "failed"
    assert list((home / "runs").iterdir()) == []
    with pytest.raises(SpecError, match="unknown option 'lerning_rate'"):
        nbtune.finetune("lora", task=task, model=folder, lerning_rate=1)
    with pytest.raises(NbtuneError, match="cannot be a name"):
        nbtune.finetune("lora", task=task, model=folder, name="a/b")
    assert list((home / "runs").iterdir()) == []


def test_a_failure_in_the_midst_keeps_the_folder_and_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nbtune.models.base.Trained.write", full)
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, max_steps=4, save_steps=2)
    with pytest.raises(RunError, match="checkpoint of step 4 could not be written: No space left"):
        run.wait()
    assert nbtune.open(run.id).status == "failed"
    assert not list((run.folder / "checkpoints").glob(".part*"))
    with pytest.raises(RunError, match="No space left"):
        nbtune.open(run.id).wait()


OTHER_PROCESS = """
import json, sys, nbtune
run = nbtune.open(sys.argv[1])
print(json.dumps({
    "status": run.status, "history": run.history.to_json(), "summary": run.summary, "spec": run.spec,
    "generate": run.generate(["Ticket: the parcel\\nWord:", "Ticket: a tent\\nWord:"], 8), "predict": run.predict([{"text": "the saddle"}]),
    "logits": run.engine().logits("Ticket: the parcel\\nWord:").tolist(),
}))
"""


def test_a_new_process_opens_a_run_and_gets_the_same_history_summary_spec_and_answers(folder: Path) -> None:
    run = nbtune.finetune("lora", task=echo_task(), model=folder, num_train_epochs=3, name="words_lora").wait()
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, run.name], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["status"] == "finished"
    assert found["history"] == run.history.to_json()
    assert found["summary"] == run.summary
    assert found["spec"] == run.spec
    assert found["generate"] == run.generate(["Ticket: the parcel\nWord:", "Ticket: a tent\nWord:"], 8)
    assert found["predict"] == run.predict([{"text": "the saddle"}])
    assert found["logits"] == run.engine().logits("Ticket: the parcel\nWord:").tolist()


def test_a_run_whose_process_is_gone_is_interrupted(folder: Path) -> None:
    code = (
        "import sys, os, nbtune; from tests.examples import ticket_task\n"
        f"run = nbtune.finetune('lora', task=ticket_task(), model={str(folder)!r}, num_train_epochs=1000, eval_steps=10000)\n"
        "run.listen(lambda event: os._exit(9) if event.type == 'step' and event.step == 5 else None)\n"
        "run.wait()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 9
    run = nbtune.runs()[-1]
    assert run.status == "interrupted"
    assert len(run.history) == 5
    with pytest.raises(RunError, match="its process is gone"):
        run.wait()


@pytest.mark.parametrize("ending", ["run.wait()", "run.listen(lambda event: done.set() if event.type == 'step' else None); done.wait()"])
def test_a_script_ends_well_whether_its_run_is_over_or_not(folder: Path, ending: str) -> None:
    code = (
        "import threading, nbtune; from tests.examples import ticket_task; done = threading.Event()\n"
        f"run = nbtune.finetune('lora', task=ticket_task(), model={str(folder)!r}, name='last', max_steps={4 if ending == 'run.wait()' else 4000}, eval_steps=5000)\n"
        f"{ending}"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    run = nbtune.open("last")
    assert run.status == ("finished" if ending == "run.wait()" else "stopped")
    assert list((run.folder / "checkpoints").iterdir())


def test_another_process_s_run_is_watched_and_stopped_through_its_folder(folder: Path, home: Path) -> None:
    code = (
        "import nbtune; from tests.examples import ticket_task\n"
        f"nbtune.finetune('lora', task=ticket_task(), model={str(folder)!r}, name='far', num_train_epochs=1e3, eval_steps=100000).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 90
        while not any(isinstance(event, Step) for run in nbtune.runs() for event in run.events()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run = nbtune.open("far")
        assert run.status == "running"
        run.stop()
        assert run.wait(timeout=60).status == "stopped"
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


def test_a_run_that_is_not_there_is_answered_with_the_nearest(folder: Path) -> None:
    nbtune.finetune("lora", task=ticket_task(30), model=folder, name="tickets_lora", max_steps=1).wait()
    with pytest.raises(RunError, match="no run 'ticket_lora'") as error:
        nbtune.open("ticket_lora")
    assert error.value.hint == "did you mean 'tickets_lora'?"


def test_dev_loss_is_nats_a_trained_token_and_the_metric_is_of_the_same_rows(folder: Path) -> None:
    run = nbtune.finetune("lora", task=ticket_task(), model=folder, dtype="float32", learning_rate=1e-9, max_steps=2, eval_steps=1).wait()
    first, second = (event for event in run.events() if isinstance(event, Evaluation))
    assert first.loss == pytest.approx(second.loss, abs=1e-4)
    assert first.num_rows == len(run.task.dev)
