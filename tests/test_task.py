"""A task's examples, its refusals, and that it opens elsewhere as it was saved."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from nbtune.data.tables import write_whole
from nbtune.errors import DataError, NbtuneError, SpecError
from nbtune.spec import SplitSpec, TaskSpec
from nbtune.task import Example, Task

PROMPT = "Which team handles this ticket?\nTicket: {{ text }}\nTeam:"
WORDS = [
    "printer",
    "password",
    "invoice",
    "refund",
    "login",
    "laptop",
    "screen",
    "network",
    "delay",
    "order",
    "parcel",
    "card",
    "charge",
    "reset",
    "broken",
    "slow",
]
TEAMS = ("billing", "sales", "support")


def tickets(count=90, seed=0):
    rng = random.Random(seed)
    return [{"text": " ".join(rng.choices(WORDS, k=9)) + f" {rng.random()}", "team": TEAMS[number % 3]} for number in range(count)]


def made(data=None, **keys):
    return Task(**{"data": tickets() if data is None else data, "prompt": PROMPT, "completion": " {{ team }}", **keys})


def test_a_classification_is_found_and_divided():
    task = made(name="tickets")
    assert (task.name, task.kind, task.labels, task.metric.name) == ("tickets", "classification", TEAMS, "accuracy")
    assert task.completion_of == {"billing": " billing", "sales": " sales", "support": " support"}
    assert (len(task.train), len(task.dev), len(task.test)) == (63, 9, 18)
    assert Counter(item.label for item in task.test) == dict.fromkeys(TEAMS, 6)
    assert "3 different answers in 90 rows" in task.notes[0]
    assert repr(task) == "Task('tickets', classification, 3 labels, 63 train + 9 dev + 18 test rows, accuracy)"


def test_an_example_holds_its_row_and_texts():
    item = made().dev[1]
    assert isinstance(item, Example)
    assert (item.index, item.split) == (1, "dev")
    assert item.prompt == f"Which team handles this ticket?\nTicket: {item.row['text']}\nTeam:"
    assert item.completion == f" {item.row['team']}"
    assert item.label == item.row["team"]
    assert len(item.key) == 16


def test_a_generation_is_found_where_answers_rarely_repeat():
    task = Task(data="demo:dates", prompt="{{ text }}\nDate:", completion=" {{ date }}")
    assert (task.kind, task.labels, dict(task.completion_of), task.metric.name) == ("generation", (), {}, "exact_match")
    assert task.train[0].label is None


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["a", "b"] * 4, "classification"),
        (["a", "b", "c"] * 8, "classification"),
        (["a", "b", "c"] * 7 + ["a", "b"], "generation"),
        (["a", "x" * 61] * 20, "generation"),
        (["a", "b\nc"] * 20, "generation"),
        ([f"{number}" for number in range(250)] * 9, "generation"),
        (["a"] * 20, "generation"),
    ],
)
def test_the_kind_follows_from_the_answers(answers, kind):
    data = [{"text": f"row {number} {random.Random(number).random()}", "team": answer} for number, answer in enumerate(answers)]
    assert made(data).kind == kind


def test_labels_or_a_metric_of_classes_decide_the_kind():
    data = [{"text": f"{number} {WORDS[number % 16]}", "team": "abcd"[number % 4]} for number in range(12)]
    assert made(data).kind == "generation"
    assert made(data, metric="macro_f1").kind == "classification"
    assert made(data, labels=list("abcde")).labels == tuple("abcde")


def test_the_split_does_not_depend_on_order_wording_or_other_columns():
    rows = tickets()
    task = made(rows)
    shuffled = random.Random(1).sample([{"id": number, **row} for number, row in enumerate(rows)], len(rows))
    other = made(shuffled, prompt="{{ text }} ->")
    assert {item.row["text"] for item in other.test} == {item.row["text"] for item in task.test}
    assert {item.row["text"] for item in made(rows, split={"seed": 1}).test} != {item.row["text"] for item in task.test}


def test_near_duplicates_stay_on_one_side():
    rows = tickets(60)
    rows += [{**row, "text": row["text"].upper() + " "} for row in rows]
    task = made(rows)
    part_of = {item.row["text"].strip().casefold(): part for part in ("train", "dev", "test") for item in getattr(task, part)}
    assert len(part_of) == 60
    for part in ("train", "dev", "test"):
        assert all(part_of[item.row["text"].strip().casefold()] == part for item in getattr(task, part))
    assert any("120 rows have duplicates" in note for note in task.notes)


def test_rows_that_ask_the_same_stay_on_one_side_though_their_columns_differ():
    rng = random.Random(0)
    rows = [{**row, "text": f"{row['text']:<80}" + " ".join(rng.choices(WORDS, k=99))} for row in tickets(30) for _ in range(2)]
    task = made(rows, prompt="{{ text | truncate(80, True, '') }}", split={"dev": 0.0})
    assert not {item.prompt for item in task.train} & {item.prompt for item in task.test}
    assert (len(task.train), len(task.test)) == (48, 12)


def test_fixed_words_of_template_and_data_make_no_duplicates():
    handbook = " ".join(f"{number} {word}" for number in range(20) for word in WORDS)
    rows = [{"context": handbook, **row} for row in tickets()]
    task = made(rows, prompt="Read: {{ context }}\n" + PROMPT)
    assert not task.warnings
    assert len(task.test) == 18


def test_rows_that_nearly_all_resemble_each_other_are_divided_with_a_warning():
    rows = [
        {"text": "please do look at the following long and common sentence number " * 3 + str(number), "team": TEAMS[number % 3]}
        for number in range(60)
    ]
    task = made(rows)
    assert len(task.test) == 12
    assert "60 of 60 rows are near-duplicates" in task.warnings[0]


def test_parts_that_the_user_made_stay():
    rows = tickets()
    task = made({"train": rows[:60], "validation": rows[60:70], "test": rows[70:]})
    assert [item.row for item in task.train] == rows[:60]
    assert [item.row for item in task.dev] == rows[60:70]
    assert [item.row for item in task.test] == rows[70:]


def test_a_part_that_lacks_is_taken_from_train():
    rows = tickets()
    task = made({"train": rows[:60], "test": rows[60:]})
    assert [item.row for item in task.test] == rows[60:]
    assert (len(task.train), len(task.dev)) == (54, 6)
    assert (len(made({"train": rows}).test), len(made({"train": rows[:60], "dev": rows[60:]}).test)) == (18, 12)


def test_what_is_taken_for_test_resembles_no_given_dev_row():
    rows = tickets(60)
    twins = [{**row, "text": row["text"] + "."} for row in rows[:20]]
    task = made({"train": rows, "dev": twins}, split={"test": 0.5})
    held = {row["text"] for row in rows[:20]}
    assert len(task.test) == 20
    assert not held & {item.row["text"] for item in task.test}


@pytest.mark.parametrize("data", [pd.DataFrame(tickets()), {"train": pd.DataFrame(tickets(60)), "test": tickets(30, seed=1)}])
def test_every_reader_feeds_a_task(data):
    assert len(made(data).test) in (18, 30)


def test_a_path_is_relative_to_the_folder(tmp_path):
    pd.DataFrame(tickets()).to_csv(tmp_path / "a.csv", index=False)
    assert len(made("a.csv", folder=tmp_path).test) == 18
    spec = TaskSpec.build({"data": "a.csv", "prompt": PROMPT, "completion": " {{ team }}"})
    assert Task.from_spec(spec, tmp_path).fingerprint == made("a.csv", folder=tmp_path).fingerprint


def test_chat_is_used_where_a_system_text_is_given():
    assert [made().uses_chat, made(system="Be short.").uses_chat, made(chat=True).uses_chat, made(chat=False).uses_chat] == [
        False,
        True,
        True,
        False,
    ]


def test_render_takes_a_row_or_the_one_text():
    task = made()
    assert task.render("hello") == task.render({"text": "hello", "other": 1}) == "Which team handles this ticket?\nTicket: hello\nTeam:"
    assert task.prompts(["hello", {"text": "hello"}]) == [task.render("hello")] * 2
    assert task.prompts(pd.DataFrame({"text": ["hello"]})) == [task.render("hello")]
    two = made([{**row, "subject": f"s{number}"} for number, row in enumerate(tickets())], prompt="{{ subject }}: {{ text }}")
    with pytest.raises(DataError, match=r"reads 2 columns \(subject, text\)"):
        two.render("hello")
    with pytest.raises(DataError, match="row 2: the template reads column 'text'"):
        task.prompts([{"text": "x"}, {"txt": "y"}])
    with pytest.raises(DataError, match="is empty"):
        made(prompt="{{ text }}").render(" ")
    with pytest.raises(DataError, match="list of rows"):
        task.prompts("hello")


def test_the_preview_counts_and_shows():
    preview = made(name="tickets").preview()
    assert (preview.name, preview.kind, preview.metric) == ("tickets", "classification", "accuracy")
    assert preview.counts == {"train": 63, "dev": 9, "test": 18}
    assert preview.label_counts == {team: {"train": 21, "dev": 3, "test": 6} for team in TEAMS}
    assert len(preview.examples) == 2
    assert preview.examples[0][0].startswith("Which team")


def test_one_label_written_two_ways_is_one_label():
    rows = tickets()
    rows[0] = {**rows[0], "team": "billing "}
    task = made(rows)
    assert task.labels == TEAMS
    assert {item.completion for part in (task.train, task.dev, task.test) for item in part} == {" billing", " sales", " support"}
    assert "different outer spaces" in task.warnings[0]


def test_labels_given_get_the_spaces_of_the_others_and_a_note_where_untrained():
    task = made(labels=[*TEAMS, "legal"])
    assert task.completion_of["legal"] == " legal"
    assert any("'legal'" in note for note in task.notes)


def test_contradictions_and_case_twins_are_warned_of():
    rows = [*tickets(), {**tickets()[0], "team": "sales"}, *[{**row, "team": "Sales"} for row in tickets(9, seed=5)]]
    warnings = made(rows).warnings
    assert any("1 prompt has contradicting labels" in text and "'billing' and 'sales'" in text for text in warnings)
    assert any("differ only in case" in text for text in warnings)


def parts(**changes):
    rows = tickets()
    return {"train": rows[:60], "test": rows[60:], **changes}


BAD = {
    "unknown column": ({"prompt": "{{ txt }}"}, DataError, "prompt: the template reads column 'txt'", "did you mean 'text'?"),
    "unknown answer column": (
        {"completion": " {{ tema }}"},
        DataError,
        "completion: the template reads column 'tema'",
        "did you mean 'team'?",
    ),
    "column lacking in test": (
        {"data": parts(test=[{"txt": "a", "team": "sales"}])},
        DataError,
        "test, prompt: the template reads column 'text'",
        "did you mean 'txt'?",
    ),
    "attribute": ({"prompt": "{{ text.__class__ }}"}, DataError, "prompt: line 1 of the template reads an attribute", "column"),
    "syntax": ({"completion": "{{ team }"}, DataError, "completion: line 1 of the template", "{{ name }}"),
    "constant prompt": ({"prompt": "Which {text}?"}, DataError, "the prompt reads no column", "{{ text }}"),
    "constant completion": ({"completion": " team"}, DataError, "the completion reads no column", "columns: text, team"),
    "empty prompt": (
        {"data": [*tickets(), {"text": " \n", "team": "sales"}], "prompt": "{{ text }}"},
        DataError,
        r"prompt is empty.*1 of 91 rows \(row 91\)",
        "drop",
    ),
    "empty completion": (
        {"data": [{"text": str(number), "team": " "} for number in range(9)]},
        DataError,
        r"completion is empty or white space only in 9 of 9 rows \(rows 1, 2, 3, 4, 5, \.\.\.\)",
        "drop",
    ),
    "missing value": (
        {"data": [*tickets(), {"text": None, "team": "sales"}]},
        DataError,
        "row 91, prompt: no value in column 'text'",
        "drop",
    ),
    "missing answers": (
        {"data": pd.DataFrame({"text": ["a", "b", "c"], "team": ["x", None, None]})},
        DataError,
        r"row 2, completion: no value in column 'team' \(and 1 more rows\)",
        "drop",
    ),
    "one row": ({"data": tickets(1), "kind": "generation"}, DataError, "1 row cannot be divided", "more rows"),
    "no rows": ({"data": []}, DataError, "no rows", "examples"),
    "one label": ({"data": [{**row, "team": "x"} for row in tickets()], "kind": "classification"}, DataError, "only one label: 'x'", "two"),
    "every label once": (
        {"data": [{**row, "team": str(number)} for number, row in enumerate(tickets())], "kind": "classification"},
        DataError,
        "no rows are left",
        "generation",
    ),
    "unseen label": (
        {"data": parts(test=[{"text": "new", "team": "legal"}])},
        DataError,
        "test has labels that train never shows: 'legal'",
        "labels:",
    ),
    "unlisted label": (
        {"labels": ["billing", "sales", "suport"]},
        DataError,
        r"row 3 has the label 'support', which labels does not list \(and 29",
        "suport",
    ),
    "label twice": ({"labels": ["a", "b", " a"]}, SpecError, "labels holds 'a' twice", "once"),
    "labels of text": ({"labels": ["a", "b"], "kind": "generation"}, SpecError, "generation has none", "classification"),
    "overlap": ({"data": parts(test=tickets()[55:65])}, DataError, "5 of 10 test prompts are in train too", "one table"),
    "no test": ({"split": {"test": 0.0}}, DataError, "no test rows", "test: 0.2"),
    "no train": ({"split": {"test": 0.6, "dev": 0.4}}, DataError, "no rows to train on", "split"),
    "split key": ({"split": {"tset": 0.2}}, SpecError, "'tset'", "test"),
    "unknown metric": ({"metric": "acuracy"}, SpecError, "unknown metric", "did you mean 'accuracy'?"),
    "metric of another kind": ({"metric": "rouge1"}, SpecError, "not a metric of classification", "accuracy"),
    "unknown kind": ({"kind": "classify"}, SpecError, "kind cannot be 'classify'", "classification"),
    "system without chat": ({"chat": False, "system": "Be short."}, SpecError, "chat: false", "drop"),
    "no file": ({"data": "tikets.csv"}, DataError, "no file tikets.csv", "csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_task_that_would_lie_is_refused(name, tmp_path):
    changes, kind, message, hint = BAD[name]
    with pytest.raises(NbtuneError, match=message) as caught:
        made(**{"folder": tmp_path, **changes})
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_misspelt_metric_is_said_before_data_is_read():
    with pytest.raises(SpecError, match="unknown metric"):
        made("no such file.csv", metric="acuracy")


def test_near_overlap_of_given_parts_is_a_warning():
    rows = tickets()
    task = made(parts(test=[{**rows[0], "text": rows[0]["text"] + "!"}, *rows[60:]]))
    assert "1 of 31 test prompts nearly equal a train prompt" in task.warnings[0]


def test_the_fingerprint_follows_what_is_learned():
    base = made().fingerprint
    assert made(name="other").fingerprint == base
    for change in (
        {"prompt": PROMPT + " "},
        {"system": "x"},
        {"split": SplitSpec(seed=1)},
        {"data": tickets(seed=1)},
        {"labels": [*TEAMS, "legal"]},
    ):
        assert made(**change).fingerprint != base


OPEN = """
import sys
from pathlib import Path
from nbtune.task import Task
heavy = [name for name in ("pandas", "numpy", "scipy", "sklearn", "datasketch", "jinja2", "torch") if name in sys.modules]
assert not heavy, heavy
task = Task.open(Path(sys.argv[1]))
print(task.fingerprint, task.train[3].key, task.metric.name, task.render("hello") == sys.argv[2], task.kind, task.uses_chat, len(task.notes))
"""


def test_a_saved_task_opens_in_a_new_process_without_its_data(tmp_path):
    pd.DataFrame(tickets()).to_csv(tmp_path / "a.csv", index=False)
    task = made("a.csv", folder=tmp_path, metric="macro_f1", system="Be short.")
    task.save(tmp_path / "task")
    (tmp_path / "a.csv").unlink()
    command = [sys.executable, "-c", OPEN, str(tmp_path / "task"), task.render("hello")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout.split()
    assert found == [task.fingerprint, task.train[3].key, "macro_f1", "True", "classification", "True", str(len(task.notes))]


def test_an_opened_task_equals_the_saved_one(tmp_path):
    rows = [{**row, "day": pd.Timestamp("2020-01-02"), "n": 1.5, "tags": ["a", {"b": None}], "é": "\u2028\x00"} for row in tickets()]
    task = made(rows, labels=[*TEAMS, "legal"], split={"dev": 0.0, "test": 0.3, "seed": 4})
    task.save(tmp_path)
    again = Task.open(tmp_path)
    assert (again.train, again.dev, again.test) == (task.train, task.dev, task.test)
    assert again.preview() == task.preview()
    assert again.fingerprint == task.fingerprint
    assert again.completion_of == task.completion_of
    assert again.spec.split == task.spec.split
    assert again.metric == task.metric
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "task.json"]
    again.save(tmp_path / "again")
    assert Task.open(tmp_path / "again").fingerprint == task.fingerprint


def test_a_metric_of_a_notebook_is_missed_only_when_it_is_used(tmp_path):
    def closeness(output, expected):
        return 1 / (1 + abs(len(output) - len(expected)))

    task = made(metric=closeness, kind="generation")
    task.save(tmp_path)
    opened = Task.open(tmp_path)
    assert opened.metric.name == "closeness"
    assert opened.render("x") == task.render("x")
    with pytest.raises(DataError, match="the metric 'closeness' is not there: it was defined in a notebook"):
        opened.metric.score(["a"], ["a"])
    assert Task.open(tmp_path, metric=closeness).metric.score(["ab"], ["a"]) == 0.5


def test_a_metric_of_a_module_comes_back(tmp_path):
    made(metric=math.dist, kind="generation").save(tmp_path)
    assert json.loads((tmp_path / "task.json").read_text())["metric_function"] == "math:dist"
    assert Task.open(tmp_path).metric.function is math.dist


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_whole(tmp_path / "task.json", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "task.json", None)
    assert [path.name for path in tmp_path.iterdir()] == ["task.json"]
    assert (tmp_path / "task.json").read_bytes() == b"old"


def test_a_folder_that_holds_no_task_or_another_one_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no task"):
        Task.open(tmp_path)
    made().save(tmp_path)
    made(tickets(seed=1)).save(tmp_path / "other")
    (tmp_path / "data.parquet").write_bytes((tmp_path / "other" / "data.parquet").read_bytes())
    with pytest.raises(DataError, match="other rows than were saved"):
        Task.open(tmp_path)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="does not hold a task's rows"):
        Task.open(tmp_path)
    (tmp_path / "task.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="lacks 'spec'"):
        Task.open(tmp_path)
    (tmp_path / "task.json").write_text('{"form')
    with pytest.raises(DataError, match="cannot be read"):
        Task.open(tmp_path)
