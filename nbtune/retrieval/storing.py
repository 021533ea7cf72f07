"""Chunks with their vectors in a LanceDB table on the disk: a folder of files, no server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.retrieval.chunking import Chunk

__all__ = ["Hit", "Stored", "Table", "hash_of"]

_NAME: Final = "chunks"
_COLUMNS: Final = ("id", "source", "heading", "start", "end", "said", "lead", "vector")
_AT_ONCE: Final = 500
_MINUTES: Final = 5
"""What was taken out is kept so long for those who are reading it."""


def hash_of(text: str) -> str:
    """A text's name: what is embedded once is found again by it."""
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:32]


@dataclass(frozen=True)
class Stored:
    """A chunk as it is kept, of the document called `digest`."""

    digest: str
    number: int
    chunk: Chunk

    @property
    def said(self) -> str:
        """What is embedded and searched."""
        return self.chunk.lead + self.chunk.text


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, with its vector and the score of what it was found by."""

    key: str
    record: Mapping[str, Any]
    vector: NDArray[np.float32]
    score: float


class Table:
    """The table in `folder`, which is made with the first chunks that are added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table: Any = self._connected().open_table(_NAME) if (folder / f"{_NAME}.lance").is_dir() else None

    def _connected(self) -> Any:
        """The folder as a database; what other processes have changed is always looked for."""
        from datetime import timedelta

        import lancedb

        return lancedb.connect(str(self._folder), read_consistency_interval=timedelta(0))

    def __len__(self) -> int:
        return 0 if self._table is None else int(self._table.count_rows())

    def digests(self) -> set[str]:
        """Which documents' chunks are here."""
        return set(self._column("digest"))

    def sources(self) -> list[str]:
        """Where they are from, each once, in order."""
        return sorted(set(self._column("source")))

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """{what was embedded, as its hash: its vector}."""
        return {} if self._table is None else dict(zip(self._column("hash"), self._matrix(self._read("vector")["vector"]), strict=True))

    def add(self, chunks: Sequence[Stored], vectors: NDArray[np.float32]) -> None:
        """Adds chunks with their vectors [chunks, features], all or none."""
        import pyarrow as pa

        size = vectors.shape[1]
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns = {
            "id": [f"{item.digest}:{item.number}" for item in chunks],
            "digest": [item.digest for item in chunks],
            "source": [item.chunk.source for item in chunks],
            "heading": [item.chunk.heading for item in chunks],
            "start": [item.chunk.start for item in chunks],
            "end": [item.chunk.end for item in chunks],
            "said": [item.said for item in chunks],
            "lead": [len(item.chunk.lead) for item in chunks],
            "hash": [hash_of(item.said) for item in chunks],
            "vector": pa.FixedSizeListArray.from_arrays(flat, size),
        }
        data = pa.table(columns)
        if self._table is None:
            self._table = self._connected().create_table(_NAME, data)
        else:
            self._table.add(data)

    def remove(self, digests: Collection[str]) -> None:
        """Takes out all chunks of these documents."""
        ordered = sorted(digests)
        for start in range(0, len(ordered), _AT_ONCE):
            some = ", ".join(f"'{digest}'" for digest in ordered[start : start + _AT_ONCE])
            self._table.delete(f"digest IN ({some})")

    def finish(self) -> None:
        """Makes the words searchable, as they are but without accents and capitals, since no document's language is known."""
        from datetime import timedelta

        from lancedb.index import FTS

        words = FTS(stem=False, remove_stop_words=False, ascii_folding=True, lower_case=True)
        self._table.create_index("said", config=words, replace=True)
        self._table.optimize(cleanup_older_than=timedelta(minutes=_MINUTES))

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[Hit]:
        """The `count` chunks of the highest cosine, by comparing with every one."""
        asked = self._table.search(vector, query_type="vector").distance_type("cosine")
        found = asked.select([*_COLUMNS, "_distance"]).limit(count).to_arrow()
        return _ordered(self._hits(found, [float(row @ vector) for row in self._matrix(found["vector"])]))

    def matching(self, query: str, count: int) -> list[Hit]:
        """The `count` chunks of the highest BM25 for the words of a query; fewer, where fewer hold any of them."""
        from lancedb.query import MatchQuery

        words = " ".join(re.findall(r"\w+", query))
        if not words:
            return []
        match: Any = MatchQuery
        found = self._table.search(match(words, "said"), query_type="fts").select([*_COLUMNS, "_score"]).limit(count).to_arrow()
        return _ordered(self._hits(found, found["_score"].to_pylist()))

    def _hits(self, found: Any, scores: Sequence[float]) -> list[Hit]:
        vectors = self._matrix(found["vector"])
        records = found.drop_columns(["vector"]).to_pylist()
        return [Hit(str(row["id"]), row, vector, score) for row, vector, score in zip(records, vectors, scores, strict=True)]

    def _matrix(self, column: Any) -> NDArray[np.float32]:
        import numpy as np

        size = column.type.list_size
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, np.float32)
        return np.asarray(flat, np.float32).reshape(-1, size)

    def _column(self, name: str) -> Iterator[str]:
        return iter(()) if self._table is None else iter(self._read(name)[name].to_pylist())

    def _read(self, *names: str) -> Any:
        return self._table.search().select(list(names)).limit(len(self)).to_arrow()


def _ordered(hits: list[Hit]) -> list[Hit]:
    """The best first, of the same by key."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.key))
