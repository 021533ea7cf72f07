"""What files become: what a reader sees of them and nothing else; and everything that cannot be read is said before anything is embedded."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import nbtune
from nbtune.errors import DataError, SpecError
from nbtune.retrieval.parsing import parse
from tests.retrieval.documents import PAGE, pdf_bytes


def encrypted(folder: Path) -> bytes:
    from pypdf import PdfReader, PdfWriter

    (folder / "plain.bin").write_bytes(pdf_bytes("secret"))
    writer = PdfWriter(clone_from=PdfReader(folder / "plain.bin"))
    writer.encrypt("open sesame", algorithm="RC4-128")
    writer.write(folder / "locked.pdf")
    (folder / "plain.bin").unlink()
    return (folder / "locked.pdf").read_bytes()


def test_html_is_read_as_a_reader_sees_it() -> None:
    document = parse("menu.html", PAGE.encode(), "html")
    assert "Coffee costs **three** euros." in document.text
    assert "- Apple" in document.text
    assert "| large |" in document.text
    for unseen in ("alert", "color: red", "ignore all", "unseen words", "a comment", "About", "<"):
        assert unseen not in document.text
    assert [(heading.level, heading.title) for heading in document.headings] == [(1, "Menu"), (2, "Cakes")]


def test_a_page_without_a_heading_is_headed_by_its_title() -> None:
    document = parse("a.html", b"<title>The\n title</title><p>Words.</p>", "html")
    assert document.text == "# The title\n\nWords.\n"


def test_a_page_in_another_encoding_is_read_by_what_it_declares() -> None:
    document = parse("a.html", '<meta charset="latin-1"><p>Café</p>'.encode("latin-1"), "html")
    assert "Café" in document.text


def test_a_page_nested_without_end_is_refused() -> None:
    with pytest.raises(DataError, match="nested too deeply"):
        parse("deep.html", b"<div>" * 20_000 + b"x", "html")


def test_markdown_and_texts_keep_their_words_whatever_ends_their_lines() -> None:
    assert parse("a.md", b"\xef\xbb\xbf# A\r\n\r\nb\rc", "markdown").text == "# A\n\nb\nc"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latin.txt", "latin.txt: line 2: byte 0xe9 is not UTF-8"),
        ("binary.txt", "binary.txt is no text: it holds NUL bytes"),
        ("empty.md", "empty.md holds no text"),
        ("scanned.pdf", "scanned.pdf has 2 pages and no text: it was scanned"),
        ("locked.pdf", "locked.pdf is encrypted"),
        ("damaged.pdf", "damaged.pdf cannot be read as a PDF"),
        ("picture.png", "picture.png: files that end in '.png' cannot be read"),
        ("nothing", "nothing: a file without an ending cannot be read"),
        ("missing.txt", "there is no file or folder 'missing.txt'"),
        ("bare", "there is nothing to index"),
        ("blanks", "the index would be empty"),
        ("https://example.org/page.html", "is an address, and nothing is fetched unless it is allowed"),
        ("table.csv", "table.csv: which column holds the texts is not said"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_left(here: Path, home: Path, encoder: str, name: str, said: str) -> None:
    (here / "latin.txt").write_bytes("fine\ncafé\n".encode("latin-1"))
    (here / "binary.txt").write_bytes(b"a\0b")
    (here / "empty.md").write_bytes(b" \n")
    (here / "scanned.pdf").write_bytes(pdf_bytes("", ""))
    (here / "damaged.pdf").write_bytes(pdf_bytes("words")[:60])
    (here / "picture.png").write_bytes(b"\x89PNG")
    (here / "nothing").write_text("words")
    (here / "bare").mkdir()
    (here / "bare" / "picture.png").write_bytes(b"\x89PNG")
    (here / "blanks").mkdir()
    (here / "blanks" / "a.txt").write_text("\n")
    (here / "table.csv").write_text("one,two\na,b\n")
    encrypted(here)
    with pytest.raises(DataError, match=said.split("'", maxsplit=1)[0].replace("(", r"\(")) as raised:
        nbtune.index("handbook", [name], model=encoder)
    assert said in raised.value.message
    assert raised.value.hint
    assert not (home / "indexes" / "handbook").exists()
    assert nbtune.indexes() == []


def test_all_files_that_cannot_be_read_are_named_at_once_or_gone_without(here: Path, encoder: str) -> None:
    (here / "docs" / "below").mkdir(parents=True)
    (here / "docs" / "good.txt").write_text("These words can be read.")
    (here / "docs" / "below" / "latin.txt").write_bytes("café".encode("latin-1"))
    (here / "docs" / "scanned.pdf").write_bytes(pdf_bytes(""))
    (here / "docs" / "empty.txt").write_text("")
    (here / "docs" / "picture.png").write_bytes(b"\x89PNG")
    (here / "docs" / ".hidden.txt").write_text("hidden")
    with pytest.raises(DataError, match="2 files cannot be read") as raised:
        nbtune.index("handbook", "docs", model=encoder)
    assert "docs/below/latin.txt" in raised.value.message
    assert "docs/scanned.pdf" in raised.value.message
    index = nbtune.index("handbook", "docs", model=encoder, skip_unreadable=True)
    assert index.sources == ["docs/good.txt"]
    told = "\n".join(index.notes)
    assert all(word in told for word in ("1 .png", "docs/below/latin.txt", "scanned", "docs/empty.txt"))


def test_tables_and_texts_are_a_document_a_row(here: Path, encoder: str) -> None:
    rows = [{"question": f"question {n}", "answer": f"the answer is {n}"} for n in range(3)] + [{"question": "none", "answer": ""}]
    pd.DataFrame(rows).to_csv(here / "faq.csv", index=False)
    assert nbtune.index("a", "faq.csv", column="answer", model=encoder).sources == [f"faq.csv row {n}" for n in (1, 2, 3)]
    assert nbtune.index("b", pd.DataFrame(rows), column="question", model=encoder).documents == 4
    assert nbtune.index("c", rows, column="answer", model=encoder).sources == ["row 1", "row 2", "row 3"]
    named = nbtune.index("d", texts={"opening": "The shop opens at nine.", "returns": "Thirty days."}, model=encoder)
    assert named.search("nine", 1, by="text")[0].source == "opening"
    with pytest.raises(DataError, match="there is no column 'anser'") as raised:
        nbtune.index("a", "faq.csv", column="anser", model=encoder)
    assert raised.value.hint == "did you mean 'answer'?"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chunk_size": 100, "chunk_overlap": 50}, "chunk_overlap is 50, and chunk_size 100"),
        ({"chunk_size": 2000}, "chunk_size is 2000 tokens"),
        ({"chunk_size": 3}, "chunk_size must be at least 16, not 3"),
        ({"chunk_unit": "words"}, "chunk_unit cannot be 'words'"),
        ({"chunksize": 100}, "unknown index key 'chunksize'"),
        ({"name": "../elsewhere"}, "'../elsewhere' cannot be the name of an index"),
        ({"name": ""}, "'' cannot be the name of an index"),
    ],
)
def test_options_that_cannot_be_are_refused(here: Path, encoder: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        nbtune.index(**{"name": "handbook", "texts": ["some words"], "model": encoder, **options})  # type: ignore[arg-type]
    assert said in raised.value.message
    assert nbtune.indexes() == []
