"""`nbtune.index`: an index is made, or brought up to what its documents are now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtune.errors import ModelError, SpecError
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.retrieval.indexed import FILE, FORMAT, Index, check_name, folder_of, locked, open_index, read_record, weights_of
from nbtune.retrieval.spec import IndexSpec

if TYPE_CHECKING:
    from nbtune.inference.embedding import Embedder
    from nbtune.retrieval.building import Changes

__all__ = ["index"]

Report = Callable[[str], None]


def _silent(text: str) -> None:
    """No progress wanted."""


def index(name: str, paths: Any = None, *, report: Report = _silent, **options: Any) -> Index:
    """The index of that name, made of what is named and nothing else; without anything named the one that is there.

    Run again it costs what has changed: documents are cut again where they or the options are others, and texts that were embedded are
    kept. What is no longer named, or no longer there, is taken out.

    Args:
        name: of the index.
        paths: files, folders and (with `allow_network`) addresses; or a table whose rows are documents.
        report: told in a few words what goes on.
        **options: texts, data, column, model, chunk_size, chunk_overlap, chunk_unit, skip_unreadable, allow_network, device.

    Raises:
        SpecError: an unknown option or value; another embedding model than the index was made with; an unknown name.
        DataError: something cannot be found or read, has no text, or another process is at work on the index.
        ModelError: the embedding model cannot be loaded.
    """
    if paths is not None and (hasattr(paths, "columns") or (isinstance(paths, list) and paths and isinstance(paths[0], Mapping))):
        options, paths = {**options, "data": paths}, None
    spec = IndexSpec.build({**options, "name": name, "paths": paths})
    check_name(spec.name)
    if spec.paths is None and spec.texts is None and spec.data is None:
        return open_index(spec.name, device=spec.device)
    if 2 * spec.chunk_overlap >= spec.chunk_size:
        message = f"chunk_overlap is {spec.chunk_overlap}, and chunk_size {spec.chunk_size}"
        raise SpecError(message, hint="use an overlap of less than half a chunk")
    return _brought_up_to_date(spec, report)


def _brought_up_to_date(spec: IndexSpec, report: Report) -> Index:
    from nbtune.inference.embedding import Embedder
    from nbtune.retrieval.building import carry_out, plan
    from nbtune.retrieval.sources import gather
    from nbtune.retrieval.storing import Table

    folder = folder_of(spec.name)
    there = read_record(folder) if (folder / FILE).exists() else None
    model = _model_name(spec.model)
    if there is not None and there["model"] != model:
        message = f"index {spec.name!r} was made with the embedding model {there['model']}, not {model}"
        raise SpecError(message, hint=f"say model: {there['model']}, use another name, or delete the index first (.delete())")
    gathered = gather(spec)
    report(f"loading {model}")
    embedder = Embedder.of(model, device=spec.device)
    units = _units(spec, embedder)
    fingerprint = weights_of(embedder)
    if there is not None and there["fingerprint"] != fingerprint:
        message = f"index {spec.name!r} was made with other weights than {model} has now"
        raise ModelError(message, hint="delete it (.delete()) and make it again")
    said = {key: getattr(spec, key) for key in ("chunk_size", "chunk_overlap", "chunk_unit")}
    said |= {"format": FORMAT, "model": model, "fingerprint": fingerprint, "documents": 0, "chunks": 0}
    with locked(folder):
        table = Table(folder)
        wanted = plan(gathered, spec, known=table.digests(), units=units, model=model, report=report)
        if there is not None and there["complete"] and not wanted.new and not wanted.gone:
            changes = _unchanged(there)
        else:
            folder.mkdir(exist_ok=True)
            _write(folder, {**said, **_counts(there), "complete": False})
            changes = carry_out(wanted, table, embedder, report)
        _write(folder, {**said, "documents": changes.documents, "chunks": changes.chunks, "complete": True})
    return Index(folder, device=spec.device, changes=changes, notes=wanted.notes)


def _unchanged(there: Mapping[str, Any]) -> Changes:
    from nbtune.retrieval.building import Changes

    return Changes(0, 0, 0, int(there["chunks"]), int(there["documents"]))


def _counts(there: Mapping[str, Any] | None) -> dict[str, int]:
    return {} if there is None else {key: there[key] for key in ("documents", "chunks")}


def _model_name(model: str | None) -> str:
    """A model by a name that means the same in another process: a folder by its whole path.

    Raises:
        ModelError: there is none.
    """
    from nbtune.models.loading import source_of

    source = source_of(model or DEFAULT_ENCODER)
    return source.path if source.local and source.path else source.name


def _units(spec: IndexSpec, embedder: Embedder) -> Any:
    """What lengths are counted in.

    Raises:
        SpecError: a chunk may have more tokens than the embedding model reads.
    """
    from nbtune.models.families import context_of
    from nbtune.retrieval.chunking import characters, token_units

    if spec.chunk_unit == "characters":
        return characters
    most = context_of(embedder.base.config)
    tokenizer = embedder.base.tokenizer
    room = None if most is None else most - tokenizer.num_special_tokens_to_add()
    if room is not None and spec.chunk_size > room:
        message = f"chunk_size is {spec.chunk_size} tokens, and {embedder.base.name} reads {room}"
        raise SpecError(message, hint=f"use at most {room}; what is beyond would not be found")
    return token_units(tokenizer)


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    part = folder / f".{FILE}.part"
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(folder / FILE)
