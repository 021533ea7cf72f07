"""An index: exact, brought up to date for what has changed alone, the same in another process, and refused where it cannot be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbtune
from nbtune.errors import DataError, ModelError, NbtuneError, SpecError
from nbtune.inference import embedding
from nbtune.inference.embedding import Embedder
from nbtune.locks import take
from nbtune.retrieval.storing import Table
from tests.retrieval.documents import topics
from tests.tiny import tiny_encoder


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is asked to be embedded; what other tests embedded is forgotten."""
    texts: list[str] = []
    embedding._kept.clear()
    embed = Embedder.embed

    def counted(self: Embedder, some: Sequence[str], **options: Any) -> Any:
        texts.extend(some)
        return embed(self, some, **options)

    monkeypatch.setattr(Embedder, "embed", counted)
    return texts


def test_a_search_by_vector_finds_what_comparing_with_every_chunk_finds(here: Path, encoder: str) -> None:
    index = nbtune.index("topics", topics(here / "docs", 80), model=encoder, chunk_size=24, chunk_overlap=6)
    table = Table(index.folder)
    stored = table._read("source", "start", "vector")
    matrix = table._matrix(stored["vector"])
    assert len(matrix) == index.chunks > 200
    queries = [f"what is topic {number} about" for number in range(20)]
    vectors = Embedder.of(encoder).embed(queries)
    for query, vector in zip(queries, vectors, strict=True):
        exact = np.sort(matrix @ vector)[::-1][:10]
        found = index.search(query, 10, by="vector")
        assert [item.score for item in found] == pytest.approx(list(exact), abs=1e-6)
        places = {(row["source"], row["start"]) for row in stored.drop_columns(["vector"]).to_pylist()}
        assert {(item.source, item.start) for item in found} <= places


def test_words_are_found_by_bm25_whatever_their_case_and_accents_and_no_query_is_a_command(here: Path, encoder: str) -> None:
    texts = {"one": "The Café opens at nine", "two": "nine nine nine parcels", "three": 'AND OR NOT "quoted" said: (*)'}
    index = nbtune.index("words", texts=texts, model=encoder)
    assert [item.source for item in index.search("cafe", 3, by="text")] == ["one"]
    assert [item.source for item in index.search("NINE parcels", 3, by="text")] == ["two", "one"]
    assert index.search('said:"quoted" AND (', 3, by="text")[0].source == "three"
    assert len(index.search("?!", 3, by="text")) == 0
    assert len(index.search("zebra", 3, by="text")) == 0
    assert len(index.search("zebra", 3)) == 3, "by both, what is near in meaning is found without the word"


def test_by_both_comes_first_what_both_put_first(here: Path, encoder: str) -> None:
    index = nbtune.index("topics", topics(here / "docs"), model=encoder)
    text = (here / "docs" / "topic07.txt").read_text()
    best = index.search(text, 4)
    assert best[0].source == "docs/topic07.txt"
    assert best[0].score == pytest.approx(2 / 61)
    assert [item.score for item in best] == sorted((item.score for item in best), reverse=True)
    assert list(best.table.columns) == ["text", "source", "heading", "start", "end", "score"]


def test_a_threshold_leaves_out_what_is_farther(here: Path, encoder: str) -> None:
    index = nbtune.index("topics", topics(here / "docs"), model=encoder)
    text = (here / "docs" / "topic07.txt").read_text()
    everything = index.search(text, 12, by="vector")
    limit = (everything[3].score + everything[4].score) / 2
    assert [item.score >= limit for item in everything].count(True) == len(index.search(text, 12, by="vector", threshold=limit)) == 4
    assert {item.source for item in index.search(text, 12, threshold=limit)} == {item.source for item in everything[:4]}


def test_only_what_has_changed_is_embedded_again(here: Path, encoder: str, embedded: list[str]) -> None:
    folder = topics(here / "docs", 12)
    first = nbtune.index("topics", folder, model=encoder)
    assert first.changes is not None
    assert (first.changes.embedded, first.changes.added, first.documents) == (len(embedded), first.chunks, 12)
    embedded.clear()
    same = nbtune.index("topics", folder, model=encoder)
    assert (embedded, same.changes.added, same.changes.removed) == ([], 0, 0)  # type: ignore[union-attr]
    (folder / "topic03.txt").write_text("Something else altogether.")
    (folder / "topic04.txt").unlink()
    (folder / "topic05.txt").rename(folder / "topic99.txt")
    (folder / "topic50.txt").write_text("A new file.")
    changed = nbtune.index("topics", folder, model=encoder)
    assert sorted(embedded) == ["A new file.", "Something else altogether."], "a file by another name is not embedded again"
    assert changed.documents == 12
    assert "docs/topic04.txt" not in changed.sources
    assert "docs/topic99.txt" in changed.sources
    assert changed.search("something else altogether", 1, by="text")[0].source == "docs/topic03.txt"
    assert changed.chunks == len(Table(changed.folder))


def test_an_index_that_is_open_sees_what_was_brought_up_to_date(here: Path, encoder: str) -> None:
    (here / "a.txt").write_text("Parcels come back within thirty days.")
    index = nbtune.index("returns", "a.txt", model=encoder)
    assert "thirty" in index.search("parcels", 1)[0].text
    (here / "a.txt").write_text("Parcels come back within sixty days.")
    (here / "b.txt").write_text("Something else.")
    nbtune.index("returns", ["a.txt", "b.txt"], model=encoder)
    assert "sixty" in index.search("parcels", 1, by="text")[0].text
    assert len(index.search("parcels", 2)) == index.chunks == 2


def test_cut_in_another_way_it_is_made_anew_and_says_so(here: Path, encoder: str) -> None:
    folder = topics(here / "docs")
    before = nbtune.index("topics", folder, model=encoder)
    after = nbtune.index("topics", folder, model=encoder, chunk_unit="characters", chunk_size=60, chunk_overlap=10)
    assert after.chunks > before.documents
    assert max(item.end - item.start for item in after.search("topic", after.chunks)) <= 62
    assert "up to 60 characters, 10 in common" in repr(after)


def test_interrupted_it_is_not_searched_and_goes_on_where_it_was(
    here: Path, encoder: str, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = topics(here / "docs", 12)
    monkeypatch.setattr("nbtune.retrieval.building._AT_ONCE", 4)

    def stop(text: str) -> None:
        if len(embedded) > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbtune.index("topics", folder, model=encoder, report=stop)
    (half,) = nbtune.indexes()
    assert not half.complete
    with pytest.raises(NbtuneError):
        half.search("topic", 1)
    before = len(Table(half.folder))
    assert before > 0
    embedded.clear()
    whole = nbtune.index("topics", folder, model=encoder)
    assert whole.complete
    assert 0 < len(embedded) <= whole.chunks - before
    assert len(whole.search("topic", 12, by="text")) == 12


def test_another_process_opens_it_by_name(here: Path, encoder: str) -> None:
    index = nbtune.index("topics", topics(here / "docs"), model=encoder)
    code = "import json, nbtune; i = nbtune.index('topics'); print(json.dumps([[p.source, p.score] for p in i.search('topic 7', 3)]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [item.source, pytest.approx(item.score, abs=1e-6)] for item in index.search("topic 7", 3)
    ]
    assert [other.name for other in nbtune.indexes()] == ["topics"]
    assert index.size_bytes > 1000
    assert "12 documents" in repr(index)


def test_another_embedding_model_is_refused(here: Path, encoder: str, tmp_path: Path) -> None:
    index = nbtune.index("topics", topics(here / "docs"), model=encoder)
    with pytest.raises(SpecError, match="was made with the embedding model") as raised:
        nbtune.index("topics", here / "docs", model=str(tiny_encoder("bert", tmp_path / "other")))
    assert encoder in raised.value.message
    folder = tmp_path / "mine"
    tiny_encoder("bert", folder, max_position_embeddings=512)
    mine = nbtune.index("mine", here / "docs", model=str(folder))
    nbtune.models.unload()
    tiny_encoder("bert", folder, seed=1, max_position_embeddings=512)
    with pytest.raises(ModelError, match="other weights"):
        nbtune.index("mine").search("topic", 1, by="vector")
    with pytest.raises(ModelError, match="other weights"):
        nbtune.index("mine", here / "docs", model=str(folder))
    mine.delete()
    assert [other.name for other in nbtune.indexes()] == [index.name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 13}, "k is 13, and index 'topics' has 12 chunks"),
        ({"k": 0}, "k is 0"),
        ({"by": "meaning"}, "by cannot be 'meaning'"),
        ({"by": "text", "threshold": 0.5}, "a search by text has none"),
        ({"threshold": 5.0}, "a cosine lies between"),
        ({"query": " "}, "a query is a text"),
    ],
)
def test_a_search_that_cannot_be_is_refused(here: Path, encoder: str, options: dict[str, Any], said: str) -> None:
    texts = [f"number {number}" for number in range(12)]
    index = nbtune.index("topics", texts=texts, model=encoder)
    with pytest.raises(SpecError) as raised:
        index.search(**{"query": "topic", "k": 3, **options})
    assert said in raised.value.message
    assert raised.value.hint


def test_an_index_that_is_none_is_named_with_the_likeliest(here: Path, encoder: str) -> None:
    with pytest.raises(SpecError, match="there is no index 'handbook'") as raised:
        nbtune.index("handbook")
    assert "make it first" in raised.value.hint
    nbtune.index("handbook", texts=["words"], model=encoder)
    with pytest.raises(SpecError, match="there is no index 'handbok'") as raised:
        nbtune.index("handbok")
    assert raised.value.hint == "did you mean 'handbook'?"


def test_two_processes_do_not_change_it_at_once(here: Path, home: Path, encoder: str) -> None:
    nbtune.index("handbook", texts=["words"], model=encoder)
    lock = take(home / "indexes" / ".handbook.lock", 1)
    assert lock is not None
    with pytest.raises(DataError, match="being changed by another process"):
        nbtune.index("handbook", texts=["other words"], model=encoder)
    lock.release()
    assert nbtune.index("handbook", texts=["other words"], model=encoder).chunks == 1


def test_a_damaged_file_is_said_with_what_to_do(here: Path, home: Path, encoder: str) -> None:
    nbtune.index("handbook", texts=["words"], model=encoder)
    (home / "indexes" / "handbook" / "index.json").write_text("{")
    with pytest.raises(DataError, match="'handbook' cannot be read") as raised:
        nbtune.index("handbook")
    assert "make the index again" in raised.value.hint


def test_an_index_and_what_is_found_are_shown_escaped(here: Path, encoder: str) -> None:
    from nbtune_widgets.views import index_mimebundle, passages_mimebundle

    nasty = "<img src=x onerror=alert(1)>"
    index = nbtune.index("nasty", texts={f"{nasty}.txt": f"words {nasty} \u202e"}, model=encoder)
    for bundle in (index_mimebundle(index), passages_mimebundle(index.search(f"words {nasty}", 1))):
        assert "<img" not in bundle["text/html"]
        assert "\u202e" not in bundle["text/html"] + bundle["text/plain"]
        assert bundle["text/plain"]
    assert "&lt;img" in passages_mimebundle(index.search("words", 1))["text/html"]
    assert "nothing was found" in passages_mimebundle(index.search("zebra", 1, by="text"))["text/html"]
