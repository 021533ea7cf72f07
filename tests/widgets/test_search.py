"""A prompt search as it is read: the winner first and in full, what was dropped and when, and nothing of a template as markup."""

from types import SimpleNamespace

import pandas as pd

from nbtune_widgets.search import search_html, search_text
from tests.widgets.test_static import NASTY, safe


def search(count: int = 3, template: str = "Which team?\n{{ text }}") -> SimpleNamespace:
    table = pd.DataFrame(
        {
            "template": [template, *(f"other {number} {{{{ text }}}}" for number in range(count - 1))],
            "origin": ["given", *["round 1"] * (count - 1)],
            "rows": [64, *[16] * (count - 1)],
            "accuracy": [0.875, *[0.25] * (count - 1)],
            "ci_low": [0.77, *[0.1] * (count - 1)],
            "ci_high": [0.94, *[0.5] * (count - 1)],
            "dropped_after": pd.array([None, *[16] * (count - 1)], dtype="Int64"),
            "prompt_tokens": [20.5] * count,
        }
    )
    return SimpleNamespace(label="prompt-search: k=2", template=template, metric="accuracy", table=table, told=("96 calls <b>in all</b>.",))


def test_the_winner_is_text_to_copy_and_each_template_has_its_figures() -> None:
    html = search_html([search()])
    assert '<pre class="nbt-x">Which team?\n{{ text }}</pre>' in html
    assert "0.875" in html
    assert "0.770 to 0.940" in html
    assert "16 rows" in html
    assert "96 calls &lt;b&gt;in all" in html
    text = search_text([search()])
    assert "dropped after 16 rows" in text
    assert text.endswith("    Which team?\n    {{ text }}")


def test_templates_are_escaped_wherever_they_stand() -> None:
    assert safe(search_html([search(template=f"{NASTY} {{{{ text }}}}")]))


def test_of_many_templates_the_first_fifty_are_shown_and_the_rest_counted() -> None:
    html = search_html([search(count=60)])
    assert "10 more templates are in .table" in html
    assert "other 58" not in html
