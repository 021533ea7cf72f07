"""The grid as it is read: scores with intervals, the best, and the outputs on which the approaches differ."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest

from nbtune_widgets import comparison_html, comparison_text
from nbtune_widgets.answers import answer_rows
from tests.widgets.test_static import NASTY, safe

APPROACHES = ["zero-shot", "few-shot", "run: tickets_lora"]


def comparison(rows: int = 6, *, outputs=None, table=None, metric="accuracy"):
    """Row r: the run is always right, few-shot on even rows, zero-shot on none but the last, where all are."""
    records = []
    for row in range(rows):
        for approach in APPROACHES:
            right = approach.startswith("run") or (approach == "few-shot" and row % 2 == 0) or row == rows - 1
            prompt = f"Which team?\nTicket: ticket number {row} is here\nTeam:"
            full = "Examples first.\n" + prompt if approach == "few-shot" else prompt
            output = " billing" if right else " sales"
            records.append({"row": row, "approach": approach, "prompt": full, "output": output, "expected": " billing", "correct": right})
    scores = pd.DataFrame(
        {
            "approach": APPROACHES,
            "accuracy": [0.2, 0.6, 1.0],
            "ci_low": [0.1, 0.4, 0.9],
            "ci_high": [0.3, 0.8, 1.0],
            "versus": ["run: tickets_lora", "run: tickets_lora", "few-shot"],
            "difference": [-0.8, -0.4, 0.4],
            "difference_low": [-0.9, -0.6, 0.2],
            "difference_high": [-0.6, -0.1, 0.6],
            "p_value": [1e-9, 0.0104, 0.0104],
            "p_adjusted": [3e-9, 0.0312, 0.0312],
            "trainable_parameters": [0, 0, 2_442_240],
            "adapter_bytes": [0, 0, 9_800_000],
            "peak_memory_bytes": [0, 0, 1_965_000_000],
            "train_seconds": [None, None, 116.0],
            "train_tokens": [0, 0, 31_400],
            "seconds": [8.0, 25.0, 8.5],
            "prompt_tokens": [31, 310, 31],
            "break_even_rows": [None, None, 1400.0],
        }
    )
    return SimpleNamespace(
        metric=metric,
        task_name="tickets",
        table=scores if table is None else table,
        outputs=pd.DataFrame(records) if outputs is None else outputs,
        warnings=["few-shot gives one label in 61 % of the rows"],
        checks=["the same 6 rows were answered by all"],
        notes=["labels are scored by their summed log-probability"],
        verdict=("Fine-tuning pays here.",),
    )


def test_each_approach_has_its_score_interval_difference_and_costs():
    page = safe(comparison_html(comparison()))
    for words in (
        "0.600",
        "0.400 to 0.800",
        "-0.600 to -0.100 vs run: tickets_lora",
        "< 0.001",
        "0.031",
        "2.44 M",
        "9.8 MB",
        "2.0 GB",
        "31,400",
        "1 min 56 s",
        "1,400",
        "310",
    ):
        assert words in page.text


def test_the_best_is_marked_in_words_and_only_there():
    html = comparison_html(comparison())
    assert html.count(">best<") == 1
    assert 'run: tickets_lora <span class="nbt-pill">best</span>' in html
    assert comparison_text(comparison()).count("(best)") == 1


def test_rows_on_which_approaches_differ_stand_first_and_the_last_row_where_all_agree_last():
    rows = answer_rows(comparison())
    assert [row.row for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.rank for row in rows] == [0, 0, 0, 0, 0, 2]
    assert "5 of 6 rows differ" in comparison_html(comparison())


def test_answers_that_differ_but_are_all_wrong_come_after_those_that_differ_in_being_right():
    data = comparison(2).outputs
    data.loc[data["row"] == 0, "correct"] = False
    data.loc[data["row"] == 1, ["output", "correct"]] = [" other", False]
    data.loc[data.index[-1], "correct"] = True
    assert [(row.row, row.rank) for row in answer_rows(comparison(outputs=data))] == [(1, 0), (0, 1)]


def test_prompts_are_shown_where_rows_differ_without_template_and_examples():
    html = comparison_html(comparison())
    assert re.findall(r'<td class="nbt-p"><span class="nbt-x">([^<]*)</span>', html) == ["0", "1", "2", "3", "4", "5"]
    assert "Which team" not in html
    assert "Examples first" not in html


def test_thirty_rows_are_open_two_hundred_are_there_and_the_rest_is_counted():
    html = comparison_html(comparison(260))
    opened, folded = html.split("<details>")
    assert opened.count('<th scope="row" class="nbt-n nbt-dim">') == 30
    assert "<summary>170 more rows</summary>" in folded
    assert "60 rows are left out here" in folded
    assert len(html) < 300_000


def test_long_outputs_do_not_swell_the_notebook():
    data = comparison(200).outputs
    data["output"] = "word " * 2000
    html = comparison_html(comparison(outputs=data))
    assert len(html) < 200_000
    assert "left out here" in html


def test_inputs_without_answers_are_shown_side_by_side_without_scores():
    data = comparison(3).outputs.assign(expected=None, correct=None)
    made = comparison(outputs=data, table=pd.DataFrame({"approach": APPROACHES}), metric=None)
    made.checks = []
    page = safe(comparison_html(made))
    assert "3 inputs" in page.text
    for words in ("expected", "None", "95 %", "✓", "✗", "best"):
        assert words not in page.text
    assert "billing" in comparison_text(made)


def test_warnings_notes_and_checks_are_all_said():
    text = safe(comparison_html(comparison())).text
    for words in (
        "Warning few-shot gives one label",
        "summed log-probability",
        "the same 6 rows",
        "What follows",
        "Fine-tuning pays here.",
    ):
        assert words in text


def test_right_and_wrong_are_told_by_sign_and_word_not_by_colour_alone():
    html = comparison_html(comparison())
    assert 'aria-label="right"' in html
    assert 'aria-label="wrong"' in html
    assert "✓" in html
    assert "✗" in html


def test_nothing_in_names_prompts_or_outputs_becomes_markup():
    made = comparison()
    data = made.outputs.assign(output=NASTY, expected=NASTY, prompt=NASTY, approach=NASTY)
    nasty = SimpleNamespace(
        metric=NASTY,
        task_name=NASTY,
        table=made.table.rename(columns={"accuracy": NASTY}).assign(approach=NASTY),
        outputs=data,
        warnings=[NASTY],
        checks=[NASTY],
        notes=[NASTY],
        verdict=[NASTY],
    )
    assert safe(comparison_html(nasty)).text.count("onerror") > 5


@pytest.mark.parametrize("rows", [1, 6])
def test_plain_text_holds_the_grid_and_the_first_disagreements(rows):
    lines = comparison_text(comparison(rows)).splitlines()
    assert lines[0] == f"comparison on tickets · accuracy, {rows} test rows, 95 % intervals"
    assert lines[1].split()[:2] == ["approach", "accuracy"]
    assert sum(line.startswith("row ") for line in lines) == rows - 1
