"""How documents are cut: nothing is lost, nothing is too long, and what belongs together stays together."""

from __future__ import annotations

import itertools
import random

import pytest
from transformers import AutoTokenizer

from nbtune.retrieval.chunking import Chunk, characters, chunks_of, token_units
from nbtune.retrieval.documents import Document
from nbtune.retrieval.parsing import parse
from tests.retrieval.documents import GUIDE, pdf_bytes


def uncovered(document: Document, chunks: list[Chunk]) -> list[int]:
    inside = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
    return [place for place in range(len(document.text)) if place not in inside]


def prose(seed: int, count: int) -> str:
    draw = random.Random(seed)
    ends = (" ", " ", " ", " ", ". ", ", ", "\n", "\n\n", "\t", "  ", "。", " é́ ")
    return "".join("".join(draw.choices("abcdefghijäöü漢字", k=draw.randint(1, 9))) + draw.choice(ends) for _ in range(count))


@pytest.mark.parametrize("size", [16, 33, 200])
@pytest.mark.parametrize("overlap", [0, 1, 7])
@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_every_character_lies_in_a_chunk_and_none_is_too_long(encoder: str, size: int, overlap: int, unit: str) -> None:
    units = characters if unit == "characters" else token_units(AutoTokenizer.from_pretrained(encoder))
    for seed in range(6):
        document = parse("a.md", f"{GUIDE}\n\n# Long\n\n{prose(seed, 400)}\n\n   ".encode(), "markdown")
        chunks = chunks_of(document, units, size, overlap)
        assert uncovered(document, chunks) == []
        assert all(chunk.text == document.text[chunk.start : chunk.end] for chunk in chunks)
        assert max(len(units(chunk.text.strip())) for chunk in chunks) <= size + (2 if unit == "tokens" else 0)
        assert all(later.start > earlier.start and later.end > earlier.end for earlier, later in itertools.pairwise(chunks))


def test_a_word_without_end_is_cut_where_it_must_be() -> None:
    document = Document("a.txt", "x" * 1000)
    chunks = chunks_of(document, characters, 64, 8)
    assert uncovered(document, chunks) == []
    assert {chunk.end - chunk.start for chunk in chunks[:-1]} == {64}
    assert chunks[1].start == 56


def test_headings_cut_first_and_each_chunk_says_what_it_stands_under() -> None:
    document = parse("guide.md", GUIDE.encode(), "markdown")
    chunks = chunks_of(document, characters, 1000, 0)
    assert [chunk.heading for chunk in chunks] == ["", "Guide > Opening hours", "Guide > Returns", "Guide > Underlined"]
    assert chunks[1].text.startswith("# Guide\n\n## Opening hours\n\nThe shop"), "a heading with nothing below it goes with the next"
    assert "# not a heading" in chunks[1].text
    assert chunks[2].lead == "Guide > Returns\n\n"


def test_cuts_fall_between_paragraphs_before_lines_before_sentences_before_words() -> None:
    paragraphs = "\n\n".join(f"First line {n}\nsecond line. Another sentence of {n}" for n in range(8))
    chunks = chunks_of(Document("a", paragraphs), characters, 160, 0)
    assert len(chunks) > 2
    assert all(chunk.text.startswith("First line") for chunk in chunks)
    sentences = " ".join(f"Sentence number {n} is here." for n in range(30))
    assert all(chunk.text.startswith("Sentence") for chunk in chunks_of(Document("a", sentences), characters, 100, 0))
    words = " ".join(["word"] * 100)
    assert {word for chunk in chunks_of(Document("a", words), characters, 33, 0) for word in chunk.text.split()} == {"word"}


def test_two_chunks_of_a_section_overlap_by_about_what_is_wanted_and_begin_with_whole_words() -> None:
    text = " ".join(f"w{n}" for n in range(500))
    chunks = chunks_of(Document("a", text), characters, 100, 30)
    shared = [earlier.end - later.start for earlier, later in itertools.pairwise(chunks)]
    assert all(20 <= count <= 31 for count in shared)
    assert all(chunk.text.startswith("w") and text[max(0, chunk.start - 1)] in " w" for chunk in chunks)


def test_a_page_of_a_pdf_is_a_section() -> None:
    document = parse("a.pdf", pdf_bytes("First page.", "", "Third page."), "pdf")
    chunks = chunks_of(document, characters, 100, 0)
    assert [(chunk.heading, chunk.text.strip()) for chunk in chunks] == [("page 1", "First page."), ("page 3", "Third page.")]
    assert uncovered(document, chunks) == []
    assert document.notes == ("a.pdf: 1 of 3 pages have no text",)


def test_white_space_alone_makes_no_chunk() -> None:
    assert chunks_of(Document("a", " \n\n\t "), characters, 100, 0) == []
