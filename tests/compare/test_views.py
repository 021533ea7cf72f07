"""What a comparison tells beyond its table: classes, confusions, slices, pages and figures, also after it was kept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report, confusion_matrix, f1_score

import nbtune
from nbtune import Comparison
from nbtune.errors import ComparisonError
from nbtune.metrics.statistics import interval
from tests.examples import echo_task, ticket_task
from tests.tiny import tiny_llama

LABELS = ("billing", "shipping", "technical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def made(metric: str | None = "accuracy", kind: str = "classification", rows: int = 40) -> Comparison:
    """Two columns on tickets of different lengths; the second writes at times what is no label."""
    draw = np.random.default_rng(0)
    answers = []
    for row in range(rows):
        expected = LABELS[row % 3]
        for approach, wrong in (("zero-shot", "billing"), ("free", "no idea")):
            output = expected if draw.random() < 0.6 else wrong
            prompt = f"Ticket: {'please ' * (row % 8)}{'refund' if row % 5 == 0 else 'parcel'} {row}\nTeam:"
            right = float(output == expected)
            answers.append(
                {
                    "row": row,
                    "approach": approach,
                    "prompt": prompt,
                    "output": output,
                    "expected": expected,
                    "correct": bool(right),
                    "score": right,
                }
            )
    names = ("zero-shot", "free")
    scores = [np.mean([each["score"] for each in answers if each["approach"] == name]) for name in names]
    table = [{"approach": name, str(metric): float(score), "rows": rows, "seconds": 2.0} for name, score in zip(names, scores, strict=True)]
    return Comparison("tickets", metric, tuple(table), tuple(answers), kind=kind, labels=LABELS if kind == "classification" else ())


def columns(comparison: Comparison, approach: str) -> tuple[list[str], list[str]]:
    rows = comparison.outputs[comparison.outputs["approach"] == approach]
    return list(rows["expected"]), list(rows["output"])


@pytest.mark.parametrize("approach", ["zero-shot", "free"])
def test_classes_and_confusion_are_those_of_scikit_learn(approach: str) -> None:
    comparison = made()
    expected, said = columns(comparison, approach)
    report = classification_report(expected, said, labels=list(LABELS), output_dict=True, zero_division=0)
    found = comparison.per_class(approach)
    for label in LABELS:
        assert found.loc[label].tolist() == pytest.approx([report[label][key] for key in ("precision", "recall", "f1-score", "support")])
    counts = comparison.confusion(approach)
    assert counts.loc[list(LABELS), list(LABELS)].to_numpy().tolist() == confusion_matrix(expected, said, labels=LABELS).tolist()
    assert int(counts.to_numpy().sum()) == 40, "every row is counted"
    assert ("(other)" in counts.columns) == (approach == "free")


def test_classes_are_refused_where_there_are_none_and_for_columns_that_are_not_there() -> None:
    with pytest.raises(ComparisonError, match="of kind generation, which has no classes"):
        made(kind="generation").per_class("zero-shot")
    with pytest.raises(ComparisonError, match="no column 'zeroshot'") as raised:
        made().confusion("zeroshot")
    assert "zero-shot" in raised.value.hint


def test_slices_hold_each_row_once_and_their_scores_are_those_of_the_rows() -> None:
    comparison = made()
    for by, names in (("length", 4), ("label", 3), ("contains:REFUND", 2)):
        found = comparison.slices(by)
        assert found["slice"].nunique() == names
        assert found.groupby("approach")["rows"].sum().tolist() == [40, 40]
        for approach, rows in found.groupby("approach"):
            whole = comparison.outputs[comparison.outputs["approach"] == approach]["score"].mean()
            assert (rows["score"] * rows["rows"]).sum() / 40 == pytest.approx(whole)
    billing = comparison.slices("label").query("slice == 'billing' and approach == 'free'").iloc[0]
    rows = comparison.outputs.query("expected == 'billing' and approach == 'free'")["score"].tolist()
    assert (billing["ci_low"], billing["ci_high"]) == pytest.approx(interval(rows, binary=True))
    assert comparison.slices("contains:refund")["rows"].tolist() == [8, 8, 32, 32]


def test_quartiles_of_length_are_about_as_large_and_in_order() -> None:
    rows = made().slices("length").query("approach == 'free'")
    assert rows["rows"].between(5, 15).all()
    lows = [int(name.split()[0]) for name in rows["slice"]]
    assert lows == sorted(lows)


def test_an_f1_of_a_slice_is_that_of_all_its_rows() -> None:
    comparison = made("macro_f1")
    found = comparison.slices("contains:refund", intervals=False).query("approach == 'zero-shot'").iloc[0]
    rows = comparison.outputs[comparison.outputs["prompt"].str.contains("refund") & (comparison.outputs["approach"] == "zero-shot")]
    wanted = f1_score(rows["expected"], rows["output"], average="macro", labels=sorted(set(rows["expected"])), zero_division=0)
    assert found["score"] == pytest.approx(wanted)
    assert pd.isna(found["ci_low"])


@pytest.mark.parametrize(
    ("by", "match"),
    [
        ("size", "not sliced by 'size'"),
        ("contains:", "names no word"),
        ("contains:ticket", "every prompt holds 'ticket'"),
        ("contains:nowhere", "no prompt holds 'nowhere'"),
    ],
)
def test_slices_that_cannot_be_are_refused_with_those_that_can(by: str, match: str) -> None:
    with pytest.raises(ComparisonError, match=match) as raised:
        made().slices(by)
    assert raised.value.hint


def test_figures_hold_every_column_and_refuse_what_there_is_nothing_of() -> None:
    comparison = made()
    figure = comparison.plot("seconds")
    assert sum(len(trace.x) for trace in figure.data) == 2
    assert "accuracy on tickets against seconds an answer" in figure.layout.title.text
    with pytest.raises(ComparisonError, match="no cost 'second'") as raised:
        comparison.plot("second")
    assert "seconds" in raised.value.hint
    with pytest.raises(ComparisonError, match="no learning curve"):
        comparison.plot("train_rows")
    with pytest.raises(ComparisonError, match="nothing is known of the training time"):
        comparison.plot("train_seconds")
    with pytest.raises(ComparisonError, match="no scores to draw"):
        made(None).plot()


def test_a_comparison_that_was_kept_tells_the_same(tmp_path: Path) -> None:
    comparison = made()
    again = Comparison.open(comparison.save(tmp_path / "grid.json"))
    pd.testing.assert_frame_equal(again.per_class("free"), comparison.per_class("free"))
    assert again.to_html() == comparison.to_html()
    assert again.to_markdown() == comparison.to_markdown()


def test_one_that_was_kept_before_it_knew_of_classes_can_still_be_opened(tmp_path: Path) -> None:
    path = made().save(tmp_path / "grid.json")
    record = {
        key: value for key, value in json.loads(path.read_text()).items() if key not in ("kind", "labels", "points", "pairs", "verdict")
    }
    path.write_text(json.dumps(record))
    again = Comparison.open(path)
    assert again.curve.empty
    assert "zero-shot" in again.to_html()


def test_a_grid_knows_its_classes(folder: Path) -> None:
    task = ticket_task(30)
    grid = nbtune.compare(["zero-shot"], task=task, model=folder)
    assert tuple(grid.per_class("zero-shot").index) == task.labels
    assert grid.curve.empty
    generated = nbtune.compare(["zero-shot"], task=echo_task(), model=folder)
    with pytest.raises(ComparisonError, match="of kind generation"):
        generated.per_class("zero-shot")
    assert "F1 by label" not in generated.to_html()
