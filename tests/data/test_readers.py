"""What can be read, and how each bad file is refused."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pandas as pd
import pytest

from nbtune.data import read
from nbtune.errors import DataError

ROWS = [{"text": "a", "team": "x"}, {"text": "b", "team": "y"}]


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,team\na,x\nb,y\n"),
        ("a.CSV", "text,team\r\na,x\r\n\r\nb,y\r\n"),
        ("bom.csv", b"\xef\xbb\xbftext,team\na,x\nb,y"),
        ("semicolon.csv", "text;team\na;x\nb;y\n"),
        ("tab.csv", "text\tteam\na\tx\nb\ty\n"),
        ("a.tsv", "text\tteam\na\tx\nb\ty\n"),
        ("a.jsonl", '{"text": "a", "team": "x"}\n\n{"team": "y", "text": "b"}\n'),
        ("a.ndjson", '{"text": "a", "team": "x"}\n{"text": "b", "team": "y"}'),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("data.json", json.dumps({"data": ROWS})),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path, name, content):
    assert read(written(tmp_path, name, content)) == {"all": ROWS}


def test_every_object_gives_the_same_rows(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(tmp_path / "a.parquet")
    for data in (frame, ROWS, tuple(ROWS), datasets.Dataset.from_list(ROWS), str(tmp_path / "a.parquet")):
        assert read(data) == {"all": ROWS}


def test_a_relative_path_is_relative_to_the_folder(tmp_path):
    written(tmp_path, "a.csv", "text,team\na,x\nb,y\n")
    assert read("a.csv", folder=tmp_path) == {"all": ROWS}


def test_csv_cells_stay_text_as_they_stand():
    raw = "id,text,label\n007,NA,1e-3\n012,,true\n"
    from nbtune.data.files import read_bytes

    assert read_bytes(raw.encode(), "a.csv") == [
        {"id": "007", "text": "NA", "label": "1e-3"},
        {"id": "012", "text": "", "label": "true"},
    ]


def test_a_comma_in_the_header_wins_over_semicolons_in_cells(tmp_path):
    assert read(written(tmp_path, "a.csv", "text,team\na;b,x\n")) == {"all": [{"text": "a;b", "team": "x"}]}


def test_json_line_separators_inside_text_do_not_cut_a_line(tmp_path):
    assert read(written(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\n')) == {"all": [{"text": "a\u2028b\x85c"}]}


@pytest.mark.parametrize("alias", ["dev", "validation", "val", "valid"])
def test_parts_by_any_of_their_names(alias):
    assert read({"test": ROWS[1:], alias: ROWS[:1], "train": ROWS}) == {"train": ROWS, "dev": ROWS[:1], "test": ROWS[1:]}


def test_a_dataset_dict_is_parts_and_its_class_numbers_become_names():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["World", "Sport"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    found = read(datasets.DatasetDict({"train": part, "validation": part}))
    assert [row["label"] for row in found["train"]] == ["Sport", "World", None]
    assert found["dev"] == found["train"]


def test_values_of_a_frame_are_plain_and_missing_ones_none():
    frame = pd.DataFrame(
        {
            "number": pd.array([1, None], dtype="Int64"),
            "float": [np.nan, 1.5],
            "text": ["x", None],
            "flag": [np.bool_(True), np.bool_(False)],
            "day": pd.to_datetime(["2020-01-02", None]),
            "kind": pd.Categorical(["a", None]),
            "many": [np.array([1, 2]), ["x"]],
        }
    )
    rows = read(frame)["all"]
    assert rows == [
        {"number": 1, "float": None, "text": "x", "flag": True, "day": "2020-01-02 00:00:00", "kind": "a", "many": [1, 2]},
        {"number": None, "float": 1.5, "text": None, "flag": False, "day": None, "kind": None, "many": ["x"]},
    ]
    assert json.loads(json.dumps(rows)) == rows
    assert {type(value) for row in rows for value in row.values()} <= {int, float, str, bool, list, type(None)}


def test_numpy_scalars_in_a_list_of_dicts_become_plain():
    row = read([{"a": np.int64(3), "b": np.float32(0.5), "c": np.str_("x"), "d": float("nan")}])["all"][0]
    assert row == {"a": 3, "b": 0.5, "c": "x", "d": None}
    assert [type(value) for value in row.values()] == [int, float, str, type(None)]


@pytest.mark.parametrize("name", ["tickets", "dates"])
def test_the_demo_data_is_there(name):
    rows = read(f"demo:{name}")["all"]
    assert len(rows) > 100
    assert "text" in rows[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", r"empty\.csv is empty"),
        ("empty.jsonl", " \n\n", "is empty"),
        ("header.csv", "text,team\n", "header but no rows"),
        ("none.json", "[]", "no rows"),
        ("ragged.csv", 'text,team\n"a\nb",x\na,b,c\n', "line 4 has 3 cells, the header has 2"),
        ("short.csv", "text,team\na,x\n\nb\n", "line 4 has 1 cells"),
        ("twice.csv", "text,text\na,b\n", "two columns are named 'text'"),
        ("unnamed.csv", "text,\na,b\n", "column 2 has no name"),
        ("open.csv", 'text,team\na,x\n"b,y\n', "line 3: unexpected end"),
        ("latin.csv", b"text,team\na,x\ncaf\xe9,y\n", "line 3: byte 0xe9 is not UTF-8"),
        ("utf16.csv", "text,team\na,x\n".encode("utf-16"), "UTF-16"),
        ("bad.jsonl", '{"text": "a"}\n{"text": \n', r"line 2, column \d+: not JSON"),
        ("array.jsonl", '{"text": "a"}\n["b"]\n', "line 2 is not an object"),
        ("differ.jsonl", '{"text": "a"}\n\n{"txt": "b"}\n', "columns differ: line 3 lacks 'text' and has 'txt'"),
        ("key.jsonl", '{"text": "a", "text": "b"}\n', "line 1: the key 'text' stands twice"),
        ("half.jsonl", '{"text": "\\ud83d"}\n', "line 1, column 'text' holds half a surrogate pair"),
        ("bad.json", '[{"text": "a"},\n{"text": "b"', r"line 2, column \d+: not JSON"),
        ("columns.json", '{"text": ["a"]}', "no list of rows"),
        ("path.json", '{"train": "other.csv"}', "no list of rows"),
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("no.parquet", "PAR1", "not a parquet file"),
        ("a.xls", "text", "cannot read files that end in '.xls'"),
        ("noending", "text", "no ending"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(written(tmp_path, name, content))
    assert name in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_names_the_likeliest(tmp_path):
    written(tmp_path, "tickets.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"no file tikets\.csv") as caught:
        read("tikets.csv", folder=tmp_path)
    assert caught.value.hint == "did you mean 'tickets.csv'?"
    with pytest.raises(DataError, match="no folder"):
        read("nowhere/tickets.csv", folder=tmp_path)


def test_a_folder_is_no_file(tmp_path):
    written(tmp_path, "tickets.csv", "a\n1\n")
    with pytest.raises(DataError, match="is a folder") as caught:
        read(tmp_path)
    assert "tickets.csv" in caught.value.hint


def test_hidden_files_and_folders_of_a_folder_of_texts_are_left_out(tmp_path):
    folder = tmp_path / ".mine"  # what is above does not matter
    for name in ("a.md", "below/b.txt", ".c.md", ".ipynb_checkpoints/a-checkpoint.md", "below/.venv/lib/d.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written(folder, name, name)
    assert [row["file"] for row in read(folder)["all"]] == ["a.md", "below/b.txt"]
    (folder / "a.md").unlink()
    (folder / "below/b.txt").unlink()
    with pytest.raises(DataError, match="is a folder"):
        read(folder)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ("demo:ticket", "no demo data 'ticket'", "did you mean 'tickets'"),
        ("  ", "no data is named", "DataFrame"),
        ([], "no rows", "examples"),
        (pd.DataFrame({"a": []}), "no rows", "examples"),
        (["a", "b"], "row 1 is not an object", "text"),
        ([{"a": 1}, {"b": 1}], "columns differ: row 2", "same columns"),
        ([{}], "row 1 has no columns", "columns"),
        ([{1: "a", "1": "b"}], "two columns named '1'", "rename"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'", "rename"),
        (None, "cannot read rows from NoneType", "DataFrame"),
        (iter([{"a": 1}]), "cannot read rows from list_iterator", "list of dicts"),
        ({"train": ROWS, "tset": ROWS}, "unknown part of the data 'tset'", "did you mean 'test'"),
        ({"text": ["a"], "label": ["b"]}, "unknown part of the data 'text'", "one table"),
        ({"test": ROWS}, "no train part", "train"),
        ({"train": ROWS, "dev": ROWS, "val": ROWS}, "two parts for 'dev'", "keep one"),
        ({"train": ROWS, "test": []}, "test: the data has no rows", "examples"),
        ({"train": {"train": ROWS}}, "itself divided", "one table"),
    ],
)
def test_a_bad_object_is_refused(data, message, hint):
    with pytest.raises(DataError, match=message) as caught:
        read(data)
    assert hint in caught.value.hint
