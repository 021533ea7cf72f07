"""The panel's controls in a real page: what is pressed says so, reaches the run, and can be done without a mouse.

The run is one that trains nothing and obeys as a real one does: what is tested is the page. `test_steering.py` steers real training.
"""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.panel import PanelView

ROOT = Path(__file__).parents[2]
CELL = f"""import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.widgets.fake_run import FakeRun, plausible_events
from nbtune import events as ev
from nbtune_widgets import RunPanel
run = FakeRun()
RunPanel(run).show()
run.start(plausible_events({{steps}}, every=60, overfits=True), pace={{pace}});"""


@pytest.fixture
def shown(open_notebook):
    """A function that shows a run of so many steps, so many seconds each: (notebook, its panel)."""
    notebooks = []

    def show(steps, pace):
        notebook = open_notebook(CELL.format(steps=steps, pace=pace))
        notebook.run_cell(0)
        notebook.wait_for_cell(0)
        panel = PanelView(notebook, 0)
        panel.wait_for_step(2)
        notebooks.append(notebook)
        return notebook, panel

    yield show
    assert [problem for notebook in notebooks for problem in notebook.problems] == []


def test_a_pressed_button_says_so_until_it_takes_effect_and_the_run_stands_still_and_goes_on(shown):
    notebook, panel = shown(10_000, 1.5)
    panel.button("Pause").click()
    waiting = panel.button("Pausing…")
    expect(waiting).to_have_attribute("aria-disabled", "true")
    expect(panel.status).to_have_text("pausing")
    panel.button("Resume").wait_for()
    expect(panel.status).to_have_text("paused")
    step = panel.step
    notebook.page.wait_for_timeout(3500)
    assert panel.step == step
    panel.button("Resume").click()
    panel.button("Resuming…").wait_for()
    panel.wait_for_step(step + 1)
    expect(panel.status).to_have_text("running")
    expect(panel.button("Pause")).to_have_attribute("aria-disabled", "false")


def test_everything_can_be_done_by_keyboard_and_keys_do_not_reach_the_notebook(shown):
    notebook, panel = shown(10_000, 0.2)
    cells = notebook.num_cells()
    panel.button("More").focus()
    notebook.page.keyboard.press("Enter")
    expect(panel.button("Evaluate now")).to_be_focused()
    for _ in range(3):
        notebook.page.keyboard.press("Tab")
    expect(panel.rate).to_be_focused()
    notebook.page.keyboard.type("4e-4")
    notebook.page.keyboard.press("ArrowDown")
    expect(panel.rate).to_have_value("0.0002")
    notebook.page.keyboard.press("ArrowUp")
    notebook.page.keyboard.press("ArrowUp")
    expect(panel.rate).to_have_value("0.0008")
    notebook.page.keyboard.press("Enter")
    panel.element.get_by_text("learning_rate = 8e-4 after step").wait_for()
    expect(panel.rate).to_have_value("")
    expect(panel.rate).to_have_attribute("placeholder", "8e-4")
    for key in ("a", "b", "d", "d"):  # in a notebook: cell above, cell below, delete the cell
        notebook.page.keyboard.press(key)
    panel.button("Pause").focus()
    for key in ("a", "b", "d", "d", "Space"):
        notebook.page.keyboard.press(key)
    panel.button("Resume").wait_for()
    assert notebook.num_cells() == cells


def test_each_of_the_quiet_buttons_reaches_the_run_once_and_what_cannot_be_is_answered_beside_the_field(shown):
    notebook, panel = shown(10_000, 0.4)
    panel.button("More").click()
    for name in ("Evaluate", "Sample", "Save"):
        panel.button(f"{name} now").dblclick()
    for name in ("Evaluate", "Sample", "Save"):
        expect(panel.button(f"{name} now")).to_have_attribute("aria-disabled", "false")
    told = notebook.execute("print([event.action for event in run.events() if event.type == 'control'])")
    assert told.strip() == "['evaluate', 'sample', 'checkpoint']"
    for typed, answer in (("7", "at most 1, not 7"), ("-1", "not -1"), ("much", "much is no number"), ("1e999", "1e999 is no number")):
        panel.rate.fill(typed)
        panel.button("Set").click()
        expect(panel.answer).to_contain_text(answer)
        expect(panel.answer).to_contain_text("→ ")
        expect(panel.answer).to_have_attribute("data-level", "error")
    panel.rate.fill("3e-4")
    panel.button("Set").click()
    expect(panel.answer).to_contain_text("learning_rate = 3e-4 after step")
    expect(panel.answer).to_have_attribute("data-level", "info")
    panel.wait_for_step(panel.step + 3)
    rates = notebook.execute("print({event.learning_rate for event in run.events() if event.type == 'step' and event.step > 3})")
    assert "0.0003" in rates
    assert not {"7", "-1"} & set(rates.strip("{} \n").split(", "))


def test_what_makes_no_sense_is_disabled_before_the_first_step_and_gone_at_the_end(open_notebook):
    cell = CELL.format(steps=10_000, pace=0.2).replace(", pace", ", first=4, pace")
    notebook = open_notebook(cell)
    notebook.run_cell(0)
    panel = PanelView(notebook, 0)
    panel.element.wait_for()
    expect(panel.button("Pause")).to_have_attribute("aria-disabled", "true")
    expect(panel.button("Stop")).to_have_attribute("aria-disabled", "false")
    panel.wait_for_step(1)
    expect(panel.button("Pause")).to_have_attribute("aria-disabled", "false")
    panel.button("Stop").click()
    expect(panel.element).to_have_count(0)
    notebook.output(0).get_by_text("stopped", exact=True).wait_for()


def test_what_is_measured_is_there_in_the_panel_and_in_what_stays_of_it_in_light_and_dark(shown):
    notebook, panel = shown(600, 0.02)
    panel.element.locator("p", has_text="overfitting since step 300").wait_for(timeout=60_000)
    panel.button("Pause").click()
    panel.button("Resume").wait_for()
    panel.button("More").click()
    text = panel.element.inner_text()
    for words in ("Best step\n300", "fill", "96 %", "forward 31 %", "backward 62 %", "tokens/s", "gap, dev less train"):
        assert words in text
    for shade in ("dark", "light"):
        notebook.theme(shade)
        notebook.page.wait_for_timeout(300)
        notebook.screenshot(f"controls-{shade}")
    panel.button("Stop").click()
    expect(panel.element).to_have_count(0)
    left = notebook.output(0)
    left.get_by_text("stopped", exact=True).wait_for()
    for words in ("overfitting since step 300", "Best step", "forward 31 %", "Fill of the batches"):
        assert words in left.inner_text()
    for shade in ("dark", "light"):
        notebook.theme(shade)
        notebook.page.wait_for_timeout(300)
        notebook.screenshot(f"measured-{shade}")


def test_after_a_reload_a_paused_run_shows_itself_paused_and_can_be_resumed(shown):
    notebook, panel = shown(10_000, 0.2)
    panel.button("Pause").click()
    panel.button("Resume").wait_for()
    notebook.save()
    notebook.reload()
    expect(panel.status).to_have_text("paused")
    step = panel.step
    panel.button("Resume").click()
    panel.wait_for_step(step + 2)
