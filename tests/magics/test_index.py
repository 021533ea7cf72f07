"""`%%index` in a real kernel: what is made, bound, shown and found, and that a grid can stand on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.magics.kernel import Kernel, Result
from tests.tiny import tiny_encoder

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def handbook(kernel: Kernel, workplace: Path) -> str:
    """The cell that makes it."""
    tiny_encoder("bert", workplace / "encoder", max_position_embeddings=512)
    docs = workplace / "docs"
    docs.mkdir()
    (docs / "returns.md").write_text("# Returns\n\nParcels come back within thirty days. <b>Bold</b> words.\n")
    (docs / "billing.md").write_text("# Invoices\n\nAn invoice that is wrong is put right by billing.\n")
    cell = "%%index our-handbook --model encoder\n- docs/returns.md\n- docs/billing.md"
    result = good(kernel.run(cell))
    assert "index our-handbook, bound to the variable our_handbook" in result.text
    assert result.result is None, "it is shown once"
    assert "documents 2" in result.shown[-1]["text/plain"]
    assert "our-handbook" in result.shown[-1]["text/html"]
    return cell


def good(result: Result) -> Result:
    assert result.status == "ok", result.lines
    return result


def test_run_again_it_embeds_nothing(kernel: Kernel, handbook: str) -> None:
    assert "0 texts embedded" in good(kernel.run(handbook)).shown[-1]["text/plain"]
    assert kernel.value("our_handbook.documents, our_handbook.changes.embedded, type(our_handbook).__name__") == "(2, 0, 'Index')"
    good(kernel.run("%%index our-handbook --model encoder --chunk_size 100\npaths: docs\nchunk_overlap: 10"))
    assert kernel.value("our_handbook.cut") == "up to 100 tokens, 10 in common"


def test_a_query_on_the_line_shows_what_is_found_escaped(kernel: Kernel, handbook: str) -> None:
    result = good(kernel.run('found = %index our-handbook "thirty days" --k 1 --by text'))
    shown = result.shown[-1]
    assert "returns.md" in shown["text/plain"]
    assert "&lt;b&gt;Bold" in shown["text/html"]
    assert "<b>Bold" not in shown["text/html"]
    assert kernel.value("len(found), found[0].source") == "(1, 'docs/returns.md')"
    assert "our-handbook" in good(kernel.run("%index")).text


def test_a_grid_and_a_prompt_stand_on_it_by_name(kernel: Kernel, handbook: str) -> None:
    good(kernel.run("%%compare --task tickets --model tiny --as grid\n- zero-shot\n- retrieval: {index: our-handbook, k: 1}", timeout=120))
    assert kernel.value("[row[0]['source'][:5] for row in grid.outputs['passages'] if row][:1]") == "['docs/']"
    good(kernel.run("%%prompt --task tickets --model tiny --num_rows 2\nretrieval: {index: our-handbook, k: 1}"))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%index\n- docs", "line 1: the index has no name"),
        ("%%index 2nd\n- docs", "line 1: '2nd' cannot be a name"),
        ("%%index other --model encoder\n- dcs", "there is no file or folder 'dcs'"),
        ("%%index other\nchunk_size: 100", "line 2: chunk_size is said, and no documents or query"),
        ("%%index other\npaths: docs\nchunksize: 100", "line 3: unknown index key 'chunksize'"),
        ('%index our-handbok "words"', "there is no index 'our-handbok'"),
        ('%index our-handbook "words" --k 90', "k is 90, and index 'our-handbook' has 2 chunks"),
        ("%%index our-handbook words\npaths: docs", "would be searched for"),
        ("%%compare --task tickets\n- zero-shot\n- retrieval: {index: our-handbok}", "line 3: there is no index 'our-handbok'"),
        ("%%compare --task tickets\n- retrieval: {index: our-handbook, k: 90}", "line 2: k is 90"),
    ],
)
def test_mistakes_are_two_clean_lines(kernel: Kernel, handbook: str, cell: str, said: str) -> None:
    result = kernel.run(cell)
    assert result.status == "error"
    assert len(result.lines) == 2, result.lines
    assert said in result.lines[0]


def test_its_help_tells_of_the_indexes_there_are(kernel: Kernel, handbook: str) -> None:
    text = good(kernel.run("%index -h")).text
    assert "our-handbook" in text
    assert "--chunk_size NUMBER" in text
    assert "--allow_network" in text
