"""An index on the disk: opened by name in any process, searched by meaning and by words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from nbtune.errors import DataError, ModelError, NbtuneError, SpecError, did_you_mean
from nbtune.retrieval.passages import Passage, Passages, fused
from nbtune.retrieval.spec import SearchBy
from nbtune.store import home
from nbtune.views import view

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.inference.embedding import Embedder
    from nbtune.retrieval.building import Changes
    from nbtune.retrieval.storing import Hit, Table

__all__ = [
    "FILE",
    "FORMAT",
    "Index",
    "check_name",
    "folder_of",
    "index_names",
    "indexes",
    "locked",
    "open_index",
    "read_record",
    "weights_of",
]

FORMAT: Final = 2
FILE: Final = "index.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEPTH: Final = 50
"""Least number of each list's chunks that a hybrid search looks at."""


class Index:
    """An index on the disk, with what its file says of it; `changes` and `notes` are of the call that made it or brought it up to date."""

    def __init__(self, folder: Path, *, device: str | None = None, changes: Changes | None = None, notes: Sequence[str] = ()) -> None:
        self.folder = folder
        self.name = folder.name
        self.changes = changes
        self.notes = tuple(notes)
        self._device = device
        self._record = read_record(folder)
        self.model = str(self._record["model"])
        self._fingerprint = str(self._record["fingerprint"])

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self._record["documents"])

    @property
    def chunks(self) -> int:
        """How many its documents are cut into."""
        return int(self._record["chunks"])

    @property
    def complete(self) -> bool:
        """Whether it was made to the end."""
        return bool(self._record["complete"])

    @property
    def cut(self) -> str:
        """How its documents are cut, in words."""
        return f"up to {self._record['chunk_size']} {self._record['chunk_unit']}, {self._record['chunk_overlap']} in common"

    @property
    def size_bytes(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def sources(self) -> list[str]:
        """Where its documents are from, in order."""
        return self._table.sources()

    @cached_property
    def _table(self) -> Table:
        from nbtune.retrieval.storing import Table

        return Table(self.folder)

    @property  # not kept: a model that is unloaded shall go
    def _embedder(self) -> Embedder:
        from nbtune.inference.embedding import Embedder

        embedder = Embedder.of(self.model, device=self._device)
        if weights_of(embedder) != self._fingerprint:
            message = f"index {self.name!r} was made with other weights than {self.model} has now"
            raise ModelError(message, hint="delete it (.delete()) and make it again")
        return embedder

    def check(self, k: int, by: str, threshold: float | None) -> None:
        """Refuses what no search can give.

        Raises:
            SpecError: an unknown way to search, more passages than chunks, a threshold that cannot be.
            DataError: the index was never finished.
        """
        self._record = read_record(self.folder)  # it may have been brought up to date since
        if by not in get_args(SearchBy):
            raise SpecError(f"by cannot be {by!r}", hint=did_you_mean(str(by), get_args(SearchBy)))
        if k < 1 or k > self.chunks:
            raise SpecError(f"k is {k}, and index {self.name!r} has {self.chunks:,} chunks", hint=f"use 1 to {self.chunks:,}")
        if threshold is not None and by == "text":
            raise SpecError("threshold is a cosine, and a search by text has none", hint="use by: vector or hybrid, or leave it out")
        if threshold is not None and not -1 <= threshold <= 1:
            raise SpecError(
                f"threshold is {threshold:g}, and a cosine lies between -1 and 1", hint="0.3 leaves out what is about something else"
            )
        if not self.complete:
            message = f"the making of index {self.name!r} was interrupted"
            raise DataError(message, hint="run its cell again, or nbtune.index with the same paths: it goes on where it was")

    def search(self, query: str, k: int = 5, *, by: SearchBy = "hybrid", threshold: float | None = None) -> Passages:
        """The `k` passages that fit a query best, all of a cosine of at least `threshold`.

        Args:
            query: a question or words.
            k: most passages.
            by: vector (cosine of meanings), text (BM25 of words), or hybrid (both, by reciprocal rank).
            threshold: least cosine of query and passage; left out: as many as there are.

        Raises:
            SpecError: as `check`, or there is no query.
            ModelError: the embedding model cannot be loaded, or is another than the index was made with.
        """
        return self.search_all([query], k, by=by, threshold=threshold)[0]

    def search_all(self, queries: Sequence[str], k: int = 5, *, by: SearchBy = "hybrid", threshold: float | None = None) -> list[Passages]:
        """The same for several queries, embedded together.

        Raises:
            SpecError, ModelError: as `search`.
        """
        self.check(k, by, threshold)
        blank = next((query for query in queries if not str(query).strip()), None)
        if blank is not None:
            raise SpecError(f"a query is a text, not {blank!r:.60}", hint='index.search("opening hours in winter")')
        vectors = [None] * len(queries) if by == "text" else list(self._embedder.embed(queries))
        return [self._found(query, vector, k, by, threshold) for query, vector in zip(queries, vectors, strict=True)]

    def _found(self, query: str, vector: NDArray[np.float32] | None, k: int, by: SearchBy, threshold: float | None) -> Passages:
        depth = min(self.chunks, max(4 * k, _DEPTH))
        near = [] if vector is None else self._table.nearest(vector, depth)
        matching = [] if by == "vector" else self._table.matching(query, depth)
        if threshold is not None and vector is not None:
            near, matching = ([hit for hit in hits if float(hit.vector @ vector) >= threshold] for hits in (near, matching))
        if by == "hybrid":
            hits = {hit.key: hit for hit in (*near, *matching)}
            best = fused([[hit.key for hit in near], [hit.key for hit in matching]])[:k]
            return Passages(query, by, tuple(_passage(hits[key], score) for key, score in best))
        return Passages(query, by, tuple(_passage(hit, hit.score) for hit in (near or matching)[:k]))

    def delete(self) -> None:
        """Removes it from the disk."""
        with locked(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __len__(self) -> int:
        return self.chunks

    def __repr__(self) -> str:
        state = "" if self.complete else ", not finished"
        return (
            f"Index({self.name!r}, {self.documents:,} documents, {self.chunks:,} chunks of {self.cut}, "
            f"{self.model}, {self.size_bytes:,} bytes{state})"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("index_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": repr(self)}


def _passage(hit: Hit, score: float) -> Passage:
    row = hit.record
    text = str(row["said"])[int(row["lead"]) :].strip()
    return Passage(text, str(row["source"]), str(row["heading"]), int(row["start"]), int(row["end"]), float(score))


def index_names() -> list[str]:
    """The names of this project's indexes, in order."""
    return sorted(path.parent.name for path in (home() / "indexes").glob(f"*/{FILE}"))


def indexes() -> list[Index]:
    """The indexes of this project, by name.

    Raises:
        DataError: one of them is damaged.
    """
    return [Index(folder_of(name)) for name in index_names()]


def open_index(name: str, *, device: str | None = None) -> Index:
    """The index of that name.

    Raises:
        SpecError: there is none.
        DataError: its file is damaged.
    """
    folder = folder_of(check_name(name))
    if not (folder / FILE).exists():
        known = index_names()
        hint = did_you_mean(name, known) if known else "make it first: %%index NAME, or nbtune.index(name, paths)"
        raise SpecError(f"there is no index {name!r}", hint=hint)
    return Index(folder, device=device)


def folder_of(name: str) -> Path:
    """Where the index of that name is, or would be."""
    return home() / "indexes" / name


def check_name(name: Any) -> str:
    """The name, if an index can have it.

    Raises:
        SpecError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SpecError(f"{name!r:.80} cannot be the name of an index", hint="use up to 64 letters, digits, _ and -")
    return name


def weights_of(embedder: Embedder) -> str:
    """Tells an embedding model from another one under its name."""
    from nbtune.models.fingerprint import fingerprint

    return fingerprint(embedder.base)


def read_record(folder: Path) -> dict[str, Any]:
    """What an index's file says of it.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    hint = f"delete the folder {folder} and make the index again"
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"index {folder.name!r} cannot be read: {error}", hint=hint) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"index {folder.name!r} was written by another version of nbtune", hint=hint)
    return record


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, for nobody else.

    Raises:
        DataError: another process has it, or it cannot be written.
    """
    from nbtune.locks import take

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        ignore = home() / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        lock = take(folder.parent / f".{folder.name}.lock", 0.3)
    except OSError as error:
        message = f"index {folder.name!r} cannot be written in {folder.parent}: {error.strerror or error}"
        raise DataError(message, hint="free some disk space, or set NBTUNE_HOME to a folder that can be written") from error
    if lock is None:
        raise DataError(f"index {folder.name!r} is being changed by another process", hint="wait until it is done")
    try:
        yield
    finally:
        lock.release()
