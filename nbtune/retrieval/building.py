"""An index brought up to what is wanted: documents that are new or changed are cut, texts never seen are embedded, the rest goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import DataError, NbtuneError
from nbtune.retrieval.chunking import chunks_of
from nbtune.retrieval.parsing import parse
from nbtune.retrieval.storing import Stored, hash_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbtune.inference.embedding import Embedder
    from nbtune.retrieval.chunking import Units
    from nbtune.retrieval.sources import Gathered, Source
    from nbtune.retrieval.spec import IndexSpec
    from nbtune.retrieval.storing import Table

__all__ = ["Changes", "Plan", "Report", "carry_out", "plan"]

Report = Callable[[str], None]
_AT_ONCE: Final = 256
"""Chunks that are embedded before they are written, whole documents at a time: what is lost where it is interrupted."""
_LISTED: Final = 5


@dataclass(frozen=True)
class Changes:
    """What bringing an index up to date took: chunks embedded, added, taken out, and in it afterwards; documents in it."""

    embedded: int
    added: int
    removed: int
    chunks: int
    documents: int


@dataclass(frozen=True)
class Plan:
    """What is to be done: {document: its chunks} to add, documents that stay, documents to take out."""

    new: Mapping[str, tuple[Stored, ...]]
    kept: frozenset[str]
    gone: frozenset[str]
    notes: tuple[str, ...]


def plan(gathered: Gathered, spec: IndexSpec, *, known: set[str], units: Units, model: str, report: Report) -> Plan:
    """Reads every source, and cuts those that are not `known` as they are now; nothing is written.

    Raises:
        DataError: files that cannot be read, all of them named; or there is no text in any.
    """
    new: dict[str, tuple[Stored, ...]] = {}
    kept: set[str] = set()
    errors: list[NbtuneError] = []
    notes, blank = list(gathered.notes), list[str]()
    said = [model, spec.chunk_size, spec.chunk_overlap, spec.chunk_unit]
    for number, source in enumerate(gathered.sources, start=1):
        report(f"reading {number:,} of {len(gathered.sources):,} documents")
        try:
            raw = source.read()
            digest = _digest(source, raw, said)
            if digest in known:
                kept.add(digest)
                continue
            document = parse(source.name, raw, source.kind)
            if not document.text.strip() and source.asked:
                raise DataError(f"{source.name} holds no text", hint="check that it was saved")  # noqa: TRY301  told with the others
        except DataError as error:
            errors.append(error)
            continue
        notes += document.notes
        chunks = chunks_of(document, units, spec.chunk_size, spec.chunk_overlap)
        if chunks:
            new[digest] = tuple(Stored(digest, place, chunk) for place, chunk in enumerate(chunks))
        else:
            blank.append(source.name)
    if errors and not spec.skip_unreadable:
        raise _all(errors)
    notes += [f"left out: {error.message}" for error in errors]
    notes += (
        [f"{len(blank)} documents hold no text: {', '.join(blank[:_LISTED])}{', ...' if len(blank) > _LISTED else ''}"] if blank else []
    )
    if not new and not kept:
        raise DataError(
            "the index would be empty: there is no text in what is named", hint="; ".join(notes[:_LISTED]) or "name other files"
        )
    return Plan(new, frozenset(kept), frozenset(known - kept), tuple(notes))


def _digest(source: Source, raw: bytes, said: Sequence[Any]) -> str:
    """Names a document as it is and as it is cut."""
    head = json.dumps([source.name, source.kind, *said]).encode()
    return hashlib.sha256(head + b"\0" + raw).hexdigest()[:32]


def _all(errors: Sequence[NbtuneError]) -> DataError:
    """One error out of those of several files."""
    if len(errors) == 1:
        return DataError(errors[0].message, hint=f"{errors[0].hint}; or skip_unreadable: true, to go without it")
    lines = [f"{len(errors)} files cannot be read", *(f"  {error.message} → {error.hint}" for error in errors[:_LISTED])]
    lines += ["  ..."] if len(errors) > _LISTED else []
    return DataError("\n".join(lines), hint="mend them, or skip_unreadable: true, to go without them")


def carry_out(plan: Plan, table: Table, embedder: Embedder, report: Report) -> Changes:
    """Writes what is new before it takes out what is gone; interrupted and begun again, it goes on where it was.

    Raises:
        ModelError: the embedding model has failed.
    """
    import numpy as np

    before = len(table)
    vectors = table.vectors() if plan.new else {}
    total = sum(map(len, plan.new.values()))
    done = embedded = 0
    for documents in _batches(list(plan.new.values())):
        chunks = list(chain.from_iterable(documents))
        texts = {hash_of(item.said): item.said for item in chunks}
        unseen = [key for key in texts if key not in vectors]
        embedding = embedder.embed([texts[key] for key in unseen], progress=_told(report, done + len(texts) - len(unseen), total))
        vectors.update(zip(unseen, embedding, strict=True))
        embedded += len(unseen)
        matrix: NDArray[np.float32] = np.stack([vectors[hash_of(item.said)] for item in chunks])
        table.add(chunks, matrix)
        done += len(chunks)
    added = before + total
    if plan.gone:
        report("taking out what is gone")
        table.remove(plan.gone)
    report("indexing words")
    table.finish()
    return Changes(embedded, total, added - len(table), len(table), len(plan.new) + len(plan.kept))


def _told(report: Report, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _here: report(f"embedding: {before + done:,} of {total:,} new chunks")


def _batches(documents: Sequence[Sequence[Stored]]) -> Iterator[list[Sequence[Stored]]]:
    batch: list[Sequence[Stored]] = []
    for document in documents:
        batch.append(document)
        if sum(map(len, batch)) >= _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
