"""What an index is made of, found and named: files, folders, saved or fetched pages, columns of tables, texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.files import visible_files
from nbtune.errors import DataError, did_you_mean
from nbtune.retrieval.pages import fetched, is_address

if TYPE_CHECKING:
    from nbtune.retrieval.parsing import Kind
    from nbtune.retrieval.spec import IndexSpec

__all__ = ["Gathered", "Source", "gather"]

_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys((".txt", ".text", ".rst"), "text"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
}
_TABLES: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_READABLE: Final = "txt, md, rst, html, pdf, or a table (csv, jsonl, parquet) with column"
_TEXT: Final = "text"
"""The column that is read where none is named."""


@dataclass(frozen=True)
class Source:
    """One document to be; `read` gives its bytes. With `asked` it was named itself, and did not only lie in a folder."""

    name: str
    kind: Kind
    read: Callable[[], bytes] = field(repr=False)
    asked: bool = True


@dataclass(frozen=True)
class Gathered:
    """Sources by different names, and what was left out."""

    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def gather(spec: IndexSpec) -> Gathered:
    """All that a spec names; files are not read yet, tables and addresses are.

    Raises:
        DataError: something is not there, or of a kind that cannot be read; an address, and the network is not allowed.
    """
    left_out: Counter[str] = Counter()
    found: dict[str, Source] = {}
    for entry in _entries(spec.paths):
        for source in _of_path(entry, spec, left_out):
            found.setdefault(source.name, source)
    for source in (*_of_texts(spec.texts), *(() if spec.data is None else _of_table(spec.data, spec.column, _called(spec.data)))):
        if source.name in found:
            raise DataError(f"two documents are called {source.name!r}", hint="give each text a name of its own")
        found[source.name] = source
    if not found:
        raise DataError("there is nothing to index", hint=f"name files or folders that hold {_READABLE}; or give texts, or data")
    kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in sorted(left_out.items()))
    return Gathered(tuple(found.values()), (f"files of other kinds were left out: {kinds}",) if kinds else ())


def _entries(paths: Any) -> list[Any]:
    if paths is None:
        return []
    entries = list(paths) if isinstance(paths, list | tuple) else [paths]
    stray = next((entry for entry in entries if not isinstance(entry, str | Path)), None)
    if stray is not None:
        raise DataError(f"paths are files, folders and addresses, not {type(stray).__name__}: {stray!r:.60}", hint="give rows as data")
    return entries


def _of_path(entry: str | Path, spec: IndexSpec, left_out: Counter[str]) -> Iterator[Source]:
    if is_address(entry):
        if not spec.allow_network:
            message = f"{str(entry)!r:.120} is an address, and nothing is fetched unless it is allowed"
            raise DataError(message, hint="save the page and name the file, or allow it: --allow_network (allow_network=True)")
        kind, raw = fetched(str(entry))
        yield Source(str(entry), kind, lambda: raw)
        return
    path = Path(entry).expanduser()
    if path.is_dir():
        yield from _of_folder(path, spec, left_out)
        return
    if not path.exists():
        raise DataError(f"there is no file or folder {str(entry)!r:.120}", hint=_hint(path))
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        yield from _of_table(str(path), spec.column, _shown(path))
    elif suffix in _KINDS:
        yield Source(_shown(path), _KINDS[suffix], lambda: _bytes(path))
    else:
        what = f"files that end in {suffix!r}" if suffix else "a file without an ending"
        raise DataError(f"{_shown(path)}: {what} cannot be read", hint=f"known: {_READABLE}")


def _hint(path: Path) -> str:
    try:
        near = did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        near = ""
    return near if near.startswith("did") else f"a path is relative to {Path.cwd()}; give what is a text itself as texts"


def _of_folder(folder: Path, spec: IndexSpec, left_out: Counter[str]) -> Iterator[Source]:
    """All files in it and below that can be read, in order; none that is hidden."""
    for path in visible_files(folder):
        suffix = path.suffix.lower()
        if suffix in _KINDS:
            yield Source(_shown(path), _KINDS[suffix], lambda path=path: _bytes(path), asked=False)  # type: ignore[misc]
        elif suffix in _TABLES and spec.column is not None:
            yield from _of_table(str(path), spec.column, _shown(path))
        else:
            left_out[suffix] += 1


def _shown(path: Path) -> str:
    """How a file is called: relative to the working folder where it lies in it."""
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else str(whole)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{_shown(path)} cannot be read: {error.strerror or error}", hint="check its permissions") from error


def _of_texts(texts: Any) -> list[Source]:
    if texts is None:
        return []
    if isinstance(texts, str):
        texts = [texts]
    named: Iterable[tuple[Any, Any]]
    named = texts.items() if isinstance(texts, Mapping) else ((f"text {number}", text) for number, text in enumerate(texts, start=1))
    found = []
    for name, text in named:
        if not isinstance(text, str):
            raise DataError(f"texts: {name} is {type(text).__name__}, not text: {text!r:.60}", hint="give a list of texts, or {name: text}")
        found.append(_of_words(str(name), text, asked=False))
    return found


def _of_words(name: str, text: str, *, asked: bool) -> Source:
    raw = text.encode("utf-8", errors="replace")
    return Source(name, "text", lambda: raw, asked)


def _called(data: Any) -> str:
    return _shown(Path(data).expanduser()) if isinstance(data, str | Path) else ""


def _of_table(data: Any, column: str | None, name: str) -> list[Source]:
    """A document a row that has something in the column."""
    from nbtune.data.readers import read

    try:
        rows = [row for part in read(data).values() for row in part]
    except DataError as error:
        raise DataError(error.message, hint=error.hint) from None
    columns = tuple(rows[0]) if rows else ()
    chosen = column or (_TEXT if _TEXT in columns else columns[0] if len(columns) == 1 else None)
    where = f"{name}: " if name else ""
    if chosen is None:
        raise DataError(f"{where}which column holds the texts is not said", hint=f"column: one of {', '.join(columns[:12])}")
    if chosen not in columns:
        raise DataError(f"{where}there is no column {chosen!r}", hint=did_you_mean(chosen, columns))
    named = f"{name} row" if name else "row"
    texts = [(number, row.get(chosen)) for number, row in enumerate(rows, start=1)]
    return [_of_words(f"{named} {number}", str(text), asked=False) for number, text in texts if text is not None and str(text).strip()]
