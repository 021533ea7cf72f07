"""What is left of the quickstart without a kernel, scripts and a network: nbconvert's HTML as a browser shows it."""

import pytest

from tests.browser.notebook import SCREENSHOTS

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(1800)]


@pytest.fixture
def without_scripts(chromium, quickstart):
    assert quickstart.returncode == 0, quickstart.printed
    context = chromium.new_context(java_script_enabled=False, offline=True, viewport={"width": 1200, "height": 1600})
    page = context.new_page()
    page.goto(quickstart.page.as_uri())
    yield page
    context.close()


def test_curves_grids_and_outputs_are_there_with_scripts_disabled(without_scripts):
    page = without_scripts
    curves = page.locator(".jp-OutputArea svg:has(path), .jp-OutputArea svg:has(polyline)")
    assert curves.count() >= 2
    for index in range(2):
        box = curves.nth(index).bounding_box()
        assert box["width"] > 0
        assert box["height"] > 0
    for run in ("tickets_lora", "dates_lora"):
        grid = page.locator(".jp-OutputArea table", has_text=f"run: {run}").first
        assert grid.is_visible()
        assert "zero-shot" in grid.inner_text()
    assert page.get_by_text("Samples from dev").first.is_visible()
    page.screenshot(path=SCREENSHOTS / "quickstart-without-scripts.png", full_page=True)


def test_the_outputs_side_by_side_are_there_without_scripts(without_scripts):
    titles = without_scripts.locator(".jp-OutputArea p", has_text="Outputs side by side")
    assert titles.count() >= 2
    for index in (0, 1):
        first = titles.nth(index).locator("xpath=following-sibling::details[1]")
        table = first.locator("table").first
        assert table.is_visible()
        heads = table.locator("thead th").all_inner_texts()
        assert {"prompt", "expected", "zero-shot"} <= set(heads)
        assert any(head.startswith("run: ") for head in heads)
        assert titles.nth(index).locator("xpath=following-sibling::details//th[@scope='row']").count() >= 10
