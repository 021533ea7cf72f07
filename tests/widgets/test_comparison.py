"""The grid as it is read: scores with intervals, the best, and the outputs on which the approaches differ."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from nbtune import Comparison
from nbtune_widgets import comparison_html, comparison_text
from nbtune_widgets.answers import answer_rows
from nbtune_widgets.comparison import comparison_page
from nbtune_widgets.costs import Scale
from nbtune_widgets.markdown import comparison_markdown, escaped
from nbtune_widgets.side_by_side import marked
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
            told = {"billing": -0.1 - row, "sales": -2.5} if approach == "few-shot" else None
            known = {"prompt": full, "output": output, "expected": " billing", "correct": right, "score": float(right)}
            records.append({"row": row, "approach": approach, **known, "log_probabilities": told})
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
            "train_seconds": [0.0, 0.0, 116.0],
            "train_tokens": [0, 0, 31_400],
            "seconds": [8.0, 25.0, 8.5],
            "prompt_tokens": [31, 310, 31],
            "rows": [rows, rows, rows],
            "kind": ["prompting", "prompting", "tuned"],
            "break_even_rows": [None, None, 1400.0],
        }
    )
    return Comparison(
        "tickets",
        metric,
        tuple((scores if table is None else table).to_dict("records")),
        tuple((pd.DataFrame(records) if outputs is None else outputs).to_dict("records")),
        ["the same 6 rows were answered by all"],
        ["few-shot gives one label in 61 % of the rows"],
        ["labels are scored by their summed log-probability"],
        verdict=("Fine-tuning pays here.",),
        kind="classification",
        labels=("billing", "sales"),
    )


def curve(**changes):
    """Scores of 25 to 100 training rows: the run overtakes few-shot, zero-shot takes none."""
    points = [{"approach": "zero-shot", "train_rows": 0, "score": 0.2, "kind": "prompting"}]
    for size, few, tuned in ((25, 0.5, 0.4), (50, 0.55, 0.7), (100, 0.6, 0.9)):
        points.append({"approach": "few-shot", "train_rows": size, "score": few, "kind": "prompting"})
        points.append({"approach": "run: tickets_lora", "train_rows": size, "score": tuned, "kind": "tuned"})
    known = {"seconds": 1.0, "train_seconds": 5.0, "run": None, **changes}
    return tuple({**point, "ci_low": point["score"] - 0.1, "ci_high": point["score"] + 0.1, **known} for point in points)


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
    assert sorted(re.findall(r'<td class="nbt-p"><span class="nbt-x">([^<]*)</span>', html)) == ["0", "1", "2", "3", "4", "5"]
    assert "Which team" not in html
    assert "Examples first" not in html


def test_thirty_rows_of_a_section_are_open_two_hundred_are_there_and_the_rest_is_counted():
    html = comparison_html(comparison(260))
    fixed = html[html.index("Fixed by tuning") : html.index("Other disagreements")]
    assert fixed.split("<details>")[0].count('<th scope="row" class="nbt-n nbt-dim">') == 30
    assert "<summary>99 more rows</summary>" in fixed
    assert html.count('<th scope="row" class="nbt-n nbt-dim">') == 200
    assert "60 rows are left out here" in html
    assert len(html) < 300_000


def test_each_row_stands_in_one_section_by_what_tuning_did_to_it():
    data = comparison(6).outputs
    data.loc[(data["row"] == 0), "correct"] = data["approach"].eq("few-shot")  # few-shot alone is right
    data.loc[(data["row"] == 2), "correct"] = False
    html = comparison_html(comparison(outputs=data))
    summaries = re.findall(r"<summary>([^<:]+): (\d+) row", html)
    assert summaries[:5] == [
        ("Fixed by tuning", "2"),
        ("Broken by tuning", "1"),
        ("Other disagreements", "1"),
        ("All wrong", "1"),
        ("All right", "1"),
    ]
    assert sorted(map(int, re.findall(r'<th scope="row" class="nbt-n nbt-dim">(\d+)</th>', html))) == [0, 1, 2, 3, 4, 5]
    assert "few-shot wrong, run: tickets_lora right" in html


@pytest.mark.parametrize(("kind", "better"), [("generation", 2), ("regression", 3)])
def test_rows_that_are_neither_right_nor_wrong_are_told_apart_by_their_scores(kind, better):
    data = comparison(6).outputs.assign(correct=None)
    data["score"] = [
        0.5 if name == "few-shot" else 0.9 if row < 2 else 0.1 if row < 5 else 0.5
        for name, row in zip(data["approach"], data["row"], strict=True)
    ]
    made = comparison(outputs=data, table=comparison().table.assign(accuracy=[0.1, 0.6, 1.0]))
    summaries = dict(re.findall(r"<summary>([^<:]+): (\d+) row", comparison_html(replace(made, kind=kind, labels=()))))
    assert int(summaries["Better by tuning"]) == better
    assert int(summaries["Worse by tuning"]) == 5 - better


def test_words_that_differ_from_the_expected_are_marked_and_missing_ones_named():
    assert marked("the red parcel", "the blue parcel") == "the <mark>red</mark> parcel"
    assert 'title="missing: blue"' in marked("the parcel", "the blue parcel")
    assert marked("<b>x</b>", "y").count("<b>") == 0
    assert marked("same", "same") == "same"


def test_wrong_outputs_are_marked_right_ones_are_not_and_log_probabilities_stand_in_the_title():
    html = comparison_html(comparison())
    assert "<mark>sales</mark>" in html
    assert "<mark>billing" not in html
    assert 'title="log-probability: sales -2.500, billing -3.100"' in html


def test_costs_stand_in_a_table_of_their_own():
    html = comparison_html(comparison())
    scores, costs = html[: html.index("What it takes")], html[html.index("What it takes") :]
    assert "trained parameters" not in scores
    assert all(words in costs for words in ("trained parameters", "on disk", "an answer", "8.0 s"))


def test_scores_are_drawn_against_what_an_answer_and_the_training_cost():
    html = comparison_html(comparison())
    for title in ("accuracy against seconds an answer", "accuracy against training time", "accuracy against trained parameters"):
        assert f'aria-label="{title}"' in html
    assert "<title>3 run: tickets_lora: 1.000, 1.4 s</title>" in html
    assert comparison_html(comparison(table=comparison().table.assign(trainable_parameters=0))).count("against trained parameters") == 0


@pytest.mark.parametrize("values", [[0.0, 1e-6, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0], [0.0, 0.0], [0.0, 7.0]])
def test_all_costs_have_a_place_within_their_axis_in_their_order(values):
    scale = Scale.of(values, str)
    places = [scale.part(value) for value in values]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert all(scale.low <= place <= scale.high for place, _ in scale.marks)


def test_the_learning_curve_is_a_picture_and_a_table():
    html = comparison_html(replace(comparison(), points=curve()))
    assert 'aria-label="accuracy over 25 to 100 training rows"' in html
    assert "<title>run: tickets_lora: 25 rows 0.400, 50 rows 0.700, 100 rows 0.900</title>" in html
    assert html.count("0.200 (0.100 to 0.300)") == 3, "what was asked once stands alike in all sizes"
    assert "The learning curve as a table" not in comparison_html(comparison())


def test_classes_and_confusions_are_there_for_classification_alone():
    html = comparison_html(comparison())
    assert "F1 by label" in html
    assert html.count("Expected (rows) by output (columns)") == 3
    assert "F1 by label" not in comparison_html(replace(comparison(), kind="generation", labels=()))


def test_a_whole_page_loads_nothing_runs_nothing_and_follows_the_theme():
    html = comparison_page(comparison())
    safe(
        html.replace("<!doctype html>", "")
        .replace('<meta charset="utf-8">', "")
        .replace('<meta name="viewport" content="width=device-width">', "")
    )
    assert "default-src 'none'" in html
    assert "color-scheme:light dark" in html


def test_markdown_holds_scores_costs_verdict_curve_classes_and_disagreements():
    text = comparison_markdown(replace(comparison(), points=curve()))
    for words in (
        "| run: tickets\\_lora  (best) | 1.000 |",
        "## What it takes",
        "- Fine-tuning pays here.",
        "| 100 rows |",
        "## F1 by label",
    ):
        assert words in text
    assert "**Fixed by tuning**: 2 rows (few-shot wrong, run: tickets\\_lora right)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_nothing_in_names_or_outputs_acts_in_markdown():
    made = comparison()
    nasty = "|a|\n# head <img src=x> [link](http://x) `code` *bold* @someone"
    text = comparison_markdown(replace(made, answers=tuple({**row, "output": nasty, "prompt": nasty} for row in made.answers)))
    assert "<img" not in text
    assert not re.search(r"(?<!\\)[`*\[@]", text.replace("**", ""))
    assert not re.search(r"https?://", text)
    assert escaped("a|b_c") == "a\\|b\\_c"


def test_long_outputs_do_not_swell_the_notebook():
    data = comparison(200).outputs
    data["output"] = "word " * 2000
    html = comparison_html(comparison(outputs=data))
    assert len(html) < 200_000
    assert "left out here" in html


def test_inputs_without_answers_are_shown_side_by_side_without_scores():
    data = comparison(3).outputs.assign(expected=None, correct=None)
    made = replace(comparison(outputs=data, table=pd.DataFrame({"approach": APPROACHES}), metric=None), checks=[])
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
    nasty = Comparison(
        NASTY,
        NASTY,
        tuple(made.table.rename(columns={"accuracy": NASTY}).assign(approach=NASTY).to_dict("records")),
        tuple(data.assign(log_probabilities=[{NASTY: -1.0}] * len(data)).to_dict("records")),
        [NASTY],
        [NASTY],
        [NASTY],
        verdict=(NASTY,),
        kind="classification",
        labels=(NASTY,),
        points=tuple({**point, "approach": NASTY} for point in curve()),
    )
    assert safe(comparison_html(nasty)).text.count("onerror") > 5


@pytest.mark.parametrize("rows", [1, 6])
def test_plain_text_holds_the_grid_and_the_first_disagreements(rows):
    lines = comparison_text(comparison(rows)).splitlines()
    assert lines[0] == f"comparison on tickets · accuracy, {rows} test rows, 95 % intervals"
    assert lines[1].split()[:2] == ["approach", "accuracy"]
    assert sum(line.startswith("row ") for line in lines) == rows - 1
