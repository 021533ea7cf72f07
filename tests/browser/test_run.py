"""A run as a person lives through it in JupyterLab and Notebook 7: it grows, it is stopped, the page is reloaded, a slider is moved.

The model is tiny and random: what is tested is what is seen, not what is learnt.
"""

import re
import time

import pytest

from tests.browser.panel import PanelView, run_folders, run_of
from tests.tiny import tiny_llama

TASK = """%%task tickets --data demo:tickets --metric accuracy
prompt: |
  Ticket: {{ text }}
  Team:
completion: " {{ team }}\""""
SMALL = "--per_device_train_batch_size 2 --max_length 128 --dtype float32 --num_samples 1"
LONG = "%finetune lora --task tickets --model {tiny} --as long --num_train_epochs 50 --eval_steps 500 " + SMALL
COMPARE = """%%compare --task tickets --model {tiny}
- zero-shot
- run: short"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def running(open_notebook, tiny):
    """A function that opens a notebook in which a run of some minutes goes on in cell 2: (notebook, its panel)."""

    def start(app):
        notebook = open_notebook("%load_ext nbtune", TASK, LONG.format(tiny=tiny), "1 + 1", app=app)
        notebook.run_all()
        panel = PanelView(notebook, 2)
        panel.wait_for_step(3, seconds=90)
        return notebook, panel

    return start


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_the_curve_grows_while_the_cell_waits_and_stop_stops_it_with_a_checkpoint(running, app):
    notebook, panel = running(app)
    first, picture, table = panel.step, panel.loss_picture(), panel.loss_table()
    panel.wait_for_step(first + 10)
    assert notebook.is_running(2)
    assert picture
    assert panel.loss_picture() != picture
    notebook.wait_until(lambda: max(panel.loss_table()) > max(table), 30, "the curve's table did not grow")
    assert all(0 < loss < 20 for loss in panel.loss_table().values())

    for shade in ("dark", "light"):
        notebook.theme(shade)
        notebook.page.wait_for_timeout(300)
        notebook.screenshot(f"run-{app}-{shade}")

    pressed = time.time()
    panel.stop()
    notebook.wait_for_cell(2)
    (folder,) = run_folders(notebook)
    _, events = run_of(folder)
    assert events[-1]["type"] == "stopped"
    step = events[-1]["step"]
    (control,) = [event for event in events if event["type"] == "control"]
    assert (control["action"], control["step"]) == ("stop", step)
    assert control["time"] - pressed < 3
    assert max(event["step"] for event in events if event["type"] == "step") == step
    checkpoints = [event for event in events if event["type"] == "checkpoint" and event["step"] == step]
    assert checkpoints
    assert (folder / checkpoints[-1]["path"] / "adapter_model.safetensors").exists()

    notebook.wait_for_cell(3)  # Run All goes on after a stop that was asked for
    shown = [output["data"] for output in notebook.outputs(2) if "data" in output]
    assert not any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    html = "".join(part for data in shown for part in data["text/html"])
    assert "<svg" in html
    assert "<script" not in html
    notebook.screenshot(f"stopped-{app}")
    assert notebook.problems == []


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_after_a_reload_the_panel_comes_back_and_goes_on(running, app):
    notebook, panel = running(app)
    notebook.save()
    before = panel.step
    notebook.reload()
    panel.wait_for_step(before + 5)
    table = panel.loss_table()
    assert min(table) <= before, "the curve has lost what came before the reload"
    notebook.wait_until(lambda: max(panel.loss_table()) > max(table), 30, "the curve did not go on after the reload")
    notebook.screenshot(f"reloaded-{app}")
    panel.stop()
    (folder,) = run_folders(notebook)
    notebook.wait_until(
        lambda: any(event["type"] == "stopped" for event in run_of(folder)[1]), 30, "Stop did not stop the run after a reload"
    )
    assert notebook.problems == []


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_slider_of_tune_is_moved_and_run_trains_with_that_value(open_notebook, tiny, app):
    line = f"%tune lora --task tickets --model {tiny} --max_steps 12 --eval_steps 6 {SMALL}"
    notebook = open_notebook("%load_ext nbtune", TASK, line, app=app)
    notebook.run_all()
    notebook.wait_for_cell(2)
    form = notebook.output(2).locator(".nbtune-tune")
    track = form.locator(".widget-hslider").filter(has=notebook.page.get_by_text("r", exact=True)).locator(".noUi-base")
    count = form.get_by_text("trained parameters of")
    count.wait_for()
    said = count.text_content()
    box = track.bounding_box()
    notebook.page.mouse.click(box["x"] + 0.72 * box["width"], box["y"] + box["height"] / 2)
    cell_text = form.locator("textarea")
    notebook.wait_until(lambda: "\nr: " in cell_text.input_value(), 10, "the cell's text did not follow the slider")
    chosen = int(re.search(r"^r: (\d+)$", cell_text.input_value(), re.MULTILINE)[1])
    assert chosen != 8
    notebook.wait_until(lambda: count.text_content() != said, 10, "the count of trained parameters did not follow the slider")
    notebook.screenshot(f"tune-{app}")

    form.get_by_role("button", name="Run").click()
    notebook.wait_until(lambda: bool(run_folders(notebook)), 60, "Run started no run; the cell's output: {}", 2)
    (folder,) = run_folders(notebook)
    notebook.wait_until(lambda: any(event["type"] == "finished" for event in run_of(folder)[1]), 90, "the run did not finish")
    spec, events = run_of(folder)
    assert (spec["r"], spec["max_steps"]) == (chosen, 12)
    notebook.output(2).get_by_text("finished").first.wait_for()
    notebook.screenshot(f"tuned-{app}")
    assert events[-1]["summary"]["trainable_parameters"] == int(count.text_content().split()[0].replace(",", ""))
    assert notebook.problems == []


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_finished_notebook_shows_everything_when_it_is_opened_again_without_its_kernel(open_notebook, tiny, app):
    short = f"%finetune lora --task tickets --model {tiny} --as short --max_steps 12 --eval_steps 6 {SMALL}"
    notebook = open_notebook("%load_ext nbtune", TASK, short, COMPARE.format(tiny=tiny), app=app)
    notebook.run_all()
    notebook.wait_for_cell(3, seconds=120)
    saved = notebook.save()
    assert notebook.path.stat().st_size < 1_000_000
    assert not any(output.output_type == "error" for cell in saved.cells for output in cell.outputs)
    notebook.server.end_sessions()

    notebook.reload()
    notebook.output(2).locator("svg").first.wait_for()
    grid = notebook.output(3).locator("table").first
    grid.wait_for()
    assert "zero-shot" in grid.inner_text()
    assert "run: short" in grid.inner_text()
    assert notebook.page.get_by_text("Error displaying widget").count() == 0
    for shade in ("dark", "light"):
        notebook.theme(shade)
        notebook.screenshot(f"opened-again-{app}-{shade}")
