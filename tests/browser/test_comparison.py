"""A comparison as a page by itself, read in a browser that runs no script and reaches no network."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.notebook import SCREENSHOTS
from tests.widgets.test_comparison import NASTY, comparison, curve


@pytest.fixture(params=["light", "dark"])
def opened(chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    made = comparison(60)
    answers = tuple({**row, "output": NASTY} if row["row"] == 0 else row for row in made.answers)
    (tmp_path / "page.html").write_text(replace(made, answers=answers, points=curve()).to_html())
    context = chromium.new_context(
        java_script_enabled=False, offline=True, color_scheme=request.param, viewport={"width": 700, "height": 900}
    )
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    page.screenshot(path=SCREENSHOTS / f"comparison-{request.param}.png", full_page=True)
    context.close()


def test_sections_open_at_a_click_and_nothing_is_wider_than_the_page(opened: Page) -> None:
    classes = opened.locator("details", has=opened.locator("summary", has_text="By class")).first
    assert not classes.get_by_text("F1 by label").is_visible()
    classes.locator("summary").first.click()
    assert classes.get_by_text("F1 by label").is_visible()
    width = opened.locator("html").evaluate("page => page.scrollWidth")
    assert width <= 700


def test_pictures_are_drawn_within_their_frames(opened: Page) -> None:
    pictures = opened.locator("svg[role=img]")
    assert pictures.count() == 4
    for index in range(4):
        frame = pictures.nth(index).bounding_box()
        assert frame is not None
        for mark in pictures.nth(index).locator("g path").all():
            box = mark.bounding_box()
            assert box is not None
            assert frame["x"] - 1 <= box["x"] <= box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
            assert frame["y"] - 1 <= box["y"] <= box["y"] + box["height"] <= frame["y"] + frame["height"] + 1


def test_text_stands_out_from_the_page_in_both_themes(opened: Page) -> None:
    colour, behind = opened.locator(".nbt").evaluate(
        "part => [getComputedStyle(part).color, getComputedStyle(document.documentElement).colorScheme]"
    )
    assert behind == "light dark"
    light = [int(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    dark_theme = opened.locator("html").evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
    assert all(value > 200 for value in light) if dark_theme else all(value < 60 for value in light)


def test_what_models_say_is_seen_as_text(opened: Page) -> None:
    assert opened.locator("tr", has_text="onerror=alert(1)").count() == 1
    assert opened.locator("img, script").count() == 0
