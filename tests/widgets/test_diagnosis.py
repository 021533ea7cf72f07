"""The data doctor's findings as static content: complete, readable without colour, and safe whatever the data holds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from nbtune.data.doctor import Bin, Diagnosis, Marked, Spread
from nbtune.data.findings import Finding
from nbtune_widgets import diagnosis_html, diagnosis_text
from tests.widgets.test_static import NASTY, safe

PIECES = (("Team", False), (":", False), (" bill", True), ("ing", True), ("<|end|>", True))


def diagnosis(**changes: Any) -> Diagnosis:
    whole = Diagnosis(
        task="tickets",
        model="smollm2-135m",
        max_length=64,
        counts={"train": 420, "dev": 60, "test": 120},
        trained=Spread(2, 3, 5),
        untrained=0,
        lengths=Spread(20, 41, 98),
        histogram=(Bin(20, 39, 200), Bin(40, 59, 150), Bin(60, 79, 50), Bin(80, 99, 20)),
        cut_rows=31,
        cut_tokens=512,
        labels={"billing": 400, "legal": 20},
        special=(("First token (BOS)", "none"), ("Last token (EOS)", "<|end|>, trained")),
        findings=(
            Finding("refuse", "two BOS tokens", "take one out", tuple(f"train[{number}]" for number in range(30))),
            Finding("warn", "labels are out of balance", "add rows of 'legal'"),
            Finding("info", "padding is the end"),
        ),
        marked=(Marked("train[0]", "", PIECES), Marked("train[7]", "the longest", PIECES)),
        encoded=(),
    )
    return replace(whole, **changes)


def test_what_was_found_is_said_with_the_fix_and_the_rows():
    text, page = diagnosis_text(diagnosis()), safe(diagnosis_html(diagnosis())).text
    for shown in (text, page):
        for words in ("tickets", "smollm2-135m", "420", "20 to 98, median 41", "2 to 5, median 3", "31 rows, 512 tokens"):
            assert words in shown
        for words in (
            "two BOS tokens",
            "→ take one out",
            "train[0], train[1]",
            "train[7] and 22 more",
            "out of balance",
            "padding is the end",
        ):
            assert words in shown
        assert "cannot be trained: 1 thing to mend" in shown
    assert "Refused two BOS tokens" in page
    assert "Warning labels are out of balance" in page


def test_the_heading_says_whether_there_is_something_to_mend():
    warned = diagnosis(findings=diagnosis().findings[1:])
    assert "can be trained, 1 warning" in diagnosis_text(warned)
    assert "nothing to mend" in diagnosis_text(diagnosis(findings=()))


def test_each_bar_is_drawn_and_the_limit_marked_where_it_lies():
    page = safe(diagnosis_html(diagnosis()))
    chart = next(attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img")
    assert "60 to 79: 50" in chart["aria-label"]
    assert "max_length is 64" in chart["aria-label"]
    bars = re.findall(r"<title>([^<]*)</title>", diagnosis_html(diagnosis()))
    assert bars == ["20 to 39 tokens: 200 rows", "40 to 59 tokens: 150 rows", "60 to 79 tokens: 50 rows", "80 to 99 tokens: 20 rows"]
    assert "max_length 64" in page.text
    assert "80 to 99  ███20  over max_length 64" in diagnosis_text(diagnosis()).replace("█ 2", "█2")


def test_a_limit_beyond_all_rows_does_not_squeeze_them():
    far, near = diagnosis_html(diagnosis(max_length=4096)), diagnosis_html(diagnosis())
    assert "max_length 4,096 is beyond all of them" in safe(far).text
    boxes = [re.findall(r'<rect x="([\d.]+)"', html)[:4] for html in (far, near)]
    assert boxes[0] == boxes[1]


def test_what_is_trained_is_told_without_colour():
    html = diagnosis_html(diagnosis())
    assert re.findall(r'nbt-token nbt-trained">([^<]*)<', html) == [" bill", "ing", "&lt;|end|&gt;"] * 2
    assert re.search(r"\.nbt-trained\{[^}]*text-decoration:\s*underline", html)
    assert "Team:⟦ billing<|end|>⟧" in diagnosis_text(diagnosis())
    assert "train[7], the longest: 5 tokens, 3 of them trained" in safe(html).text


def test_nothing_of_a_generation_task_or_of_no_rows_breaks_it():
    bare = diagnosis(labels={}, histogram=(), marked=(), findings=(), special=())
    assert "Labels" not in safe(diagnosis_html(bare)).text
    assert "nothing to mend" in diagnosis_text(bare)


def test_many_labels_and_long_rows_are_cut_and_counted():
    many = diagnosis(labels={f"label{index}": 2 for index in range(200)}, marked=(Marked("train[0]", "", (("word ", False),) * 5000),))
    html = diagnosis_html(many)
    assert "180 more labels" in safe(html).text
    assert "5,000 tokens, 0 of them trained" in safe(html).text
    assert len(html.encode()) < 60_000


def test_nothing_in_the_data_becomes_markup():
    nasty = diagnosis(
        task=NASTY,
        model=NASTY,
        labels={NASTY: 1},
        special=((NASTY, NASTY),),
        findings=(Finding("warn", NASTY, NASTY, (NASTY,)),),
        marked=(Marked(NASTY, NASTY, ((NASTY, True), (NASTY, False))),),
    )
    assert safe(diagnosis_html(nasty)).text.count("onerror") > 5
    assert not re.search("[\x1b\u202e]", diagnosis_text(replace(nasty, task="\x1b[31m\u202e")))
