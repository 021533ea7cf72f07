"""The harness itself: both applications run cells, show what widgets show, and save."""

import pytest

WIDGET = """
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
        const b = document.createElement("button"); b.className = "counter";
        const draw = () => { b.textContent = "count " + model.get("value"); };
        b.onclick = () => { model.set("value", model.get("value") + 1); model.save_changes(); };
        model.on("change:value", draw); draw(); el.append(b);
    } }'''
    value = traitlets.Int(41).tag(sync=True)

counter = Counter()
counter
"""


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_widget_is_drawn_and_talks_back(open_notebook, app):
    notebook = open_notebook(WIDGET, "print(counter.value)", app=app)
    notebook.run_cell(0)
    notebook.wait_for_cell(0)
    button = notebook.output(0).locator(".counter")
    button.click()
    notebook.page.wait_for_function("() => document.querySelector('.counter')?.textContent === 'count 42'")
    notebook.run_cell(1)
    notebook.wait_for_cell(1)
    assert notebook.outputs(1)[0]["text"].strip() == "42"
    assert "42" in notebook.save().cells[1].outputs[0].text
    assert notebook.problems == []


def test_the_theme_changes_live(open_notebook):
    notebook = open_notebook("1 + 1")
    backgrounds = set()
    for shade in ("dark", "light"):
        notebook.theme(shade)
        backgrounds.add(notebook.page.evaluate("() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color0').trim()"))
    assert len(backgrounds) == 2
