"""Real training, steered from its panel while the cell waits: it stands still, goes on, learns at another rate, is looked at and saved.

The model is tiny and random: what is tested is that what is pressed is done at the next step, and told in the run's folder.
"""

import pytest
from playwright.sync_api import expect

from tests.browser.panel import PanelView, run_folders, run_of
from tests.tiny import tiny_llama

TASK = """%%task tickets --data demo:tickets --metric accuracy
prompt: |
  Ticket: {{ text }}
  Team:
completion: " {{ team }}\""""
LONG = (
    "%finetune lora --task tickets --model {tiny} --as long --num_train_epochs 200 --eval_steps 5000 --save_steps 5000 "
    "--lr_scheduler_type constant --warmup_ratio 0 --learning_rate 1e-3 "
    "--per_device_train_batch_size 2 --max_length 128 --dtype float32 --num_samples 1"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def events_of(notebook, kind):
    (folder,) = run_folders(notebook)
    return [event for event in run_of(folder)[1] if event["type"] == kind]


def control(notebook, action):
    """The event that says the control took effect, once it is there."""
    notebook.wait_until(
        lambda: any(event["action"] == action for event in events_of(notebook, "control")), 30, f"{action} did not take effect: {{}}", 2
    )
    return next(event for event in events_of(notebook, "control") if event["action"] == action)


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_training_is_paused_resumed_set_looked_at_saved_and_stopped_from_the_panel(open_notebook, tiny, app):
    notebook = open_notebook("%load_ext nbtune", TASK, LONG.format(tiny=tiny), app=app)
    notebook.run_all()
    panel = PanelView(notebook, 2)
    panel.wait_for_step(3, seconds=90)

    panel.button("Pause").click()
    panel.button("Resume").wait_for()
    paused = control(notebook, "pause")
    expect(panel.status).to_have_text("paused")
    still = events_of(notebook, "step")
    notebook.page.wait_for_timeout(2000)
    assert events_of(notebook, "step") == still
    assert still[-1]["step"] <= paused["step"]
    assert notebook.is_running(2), "the cell waits while its run is paused"
    panel.button("Resume").click()
    panel.wait_for_step(paused["step"] + 3)
    expect(panel.status).to_have_text("running")

    panel.button("More").click()
    panel.rate.fill("2.5e-4")
    panel.rate.press("Enter")
    changed = control(notebook, "set")
    assert changed["values"] == {"learning_rate": 0.00025}
    expect(panel.answer).to_contain_text(f"learning_rate = 2.5e-4 after step {changed['step']:,}")
    panel.wait_for_step(changed["step"] + 3)
    rates = {event["step"]: event["learning_rate"] for event in events_of(notebook, "step")}
    assert rates[changed["step"]] == pytest.approx(1e-3)
    assert rates[changed["step"] + 1] == pytest.approx(2.5e-4)

    panel.rate.fill("-1")
    panel.button("Set").click()
    expect(panel.answer).to_have_attribute("data-level", "error")
    expect(panel.answer).to_contain_text("learning_rate")
    assert [event["values"] for event in events_of(notebook, "control") if event["action"] == "set"] == [{"learning_rate": 0.00025}]

    panel.button("Evaluate now").click()
    looked = control(notebook, "evaluate")
    notebook.wait_until(lambda: bool(events_of(notebook, "evaluation")), 60, "there was no look at dev")
    assert events_of(notebook, "evaluation")[0]["step"] == looked["step"]
    expect(panel.button("Evaluate now")).to_have_attribute("aria-disabled", "false")
    panel.button("Sample now").click()
    sampled = control(notebook, "sample")
    notebook.wait_until(
        lambda: any(event["step"] == sampled["step"] for event in events_of(notebook, "sample")), 60, "there was no sample answer"
    )
    panel.button("Save now").click()
    saved = control(notebook, "checkpoint")
    notebook.wait_until(
        lambda: any(event["step"] == saved["step"] for event in events_of(notebook, "checkpoint")), 60, "there was no checkpoint"
    )
    for shade in ("dark", "light"):
        notebook.theme(shade)
        notebook.page.wait_for_timeout(300)
        notebook.screenshot(f"steered-{app}-{shade}")

    panel.button("Pause").click()
    panel.button("Resume").wait_for()
    panel.stop()
    notebook.wait_for_cell(2)
    assert len(events_of(notebook, "stopped")) == 1, "a paused run can be stopped"
    assert notebook.problems == []
