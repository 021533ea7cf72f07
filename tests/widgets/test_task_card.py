"""A task's preview: counts, balance, and exactly what is trained marked."""

import re
from types import SimpleNamespace

from nbtune_widgets import task_html, task_text
from tests.widgets.test_static import NASTY, safe


def preview(**changes):
    values = {
        "name": "tickets",
        "kind": "classification",
        "metric": "accuracy",
        "counts": {"train": 420, "dev": 60, "test": 120},
        "label_counts": {"billing": {"train": 100, "dev": 10, "test": 20}, "sales": {"train": 320, "dev": 50, "test": 100}},
        "examples": (("Ticket: charged twice\nTeam:", " billing"), ("Ticket: how much\nTeam:", " sales"), ("third", " third")),
        "notes": ("kind found from the data",),
        "warnings": ("4 near-duplicates",),
    }
    return SimpleNamespace(**(values | changes))


def test_rows_labels_and_notices_are_said():
    text = safe(task_html(preview())).text
    for words in ("420", "60", "120", "accuracy", "470 (78%)", "130 (22%)", "Warning 4 near-duplicates", "kind found from the data"):
        assert words in text
    assert text.index("sales") < text.index("billing")


def test_two_rows_are_shown_with_the_completion_marked_its_space_included():
    html = task_html(preview())
    marked = re.findall(r'<mark class="nbt-trained">([^<]*)</mark>', html)
    assert marked == ["marked", " billing", " sales"]
    assert "Team:⟦ billing⟧" in task_text(preview())


def test_trained_tokens_are_marked_one_by_one_and_counted():
    tokens = SimpleNamespace(lengths_text="12 to 64 tokens", marked=[[("Team", False), (":", False), (" bill", True), ("ing", True)]])
    html = task_html(preview(), tokens)
    assert re.findall(r'nbt-token nbt-trained">([^<]*)<', html) == [" bill", "ing"]
    assert "2 of them trained" in html
    assert "12 to 64 tokens" in html
    assert "12 to 64 tokens" in task_text(preview(), tokens)


def test_a_generation_task_has_no_label_table():
    html = task_html(preview(kind="generation", label_counts={}))
    assert "Labels" not in html


def test_two_hundred_labels_are_cut_and_counted():
    labels = {f"label{index}": {"train": 2} for index in range(200)}
    assert "180 more labels" in task_html(preview(label_counts=labels))
    assert "180 more" in task_text(preview(label_counts=labels))


def test_nothing_in_the_data_becomes_markup():
    nasty = preview(
        name=NASTY,
        kind=NASTY,
        metric=NASTY,
        counts={NASTY: 1},
        label_counts={NASTY: {NASTY: 1}},
        examples=((NASTY, NASTY),),
        notes=(NASTY,),
        warnings=(NASTY,),
    )
    tokens = SimpleNamespace(lengths_text=NASTY, marked=[[(NASTY, True)]])
    assert safe(task_html(nasty, tokens)).text.count("onerror") > 5
