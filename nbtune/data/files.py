"""Tables from files: csv, tsv, jsonl, json, parquet and CoNLL, each refused with the line that is wrong; texts, cut into pieces."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from nbtune.data.rows import Row, plain_rows
from nbtune.errors import DataError, did_you_mean

__all__ = ["SUFFIXES", "decoded", "find_file", "read_bytes", "read_folder", "text_pieces", "visible_files"]

Parts = dict[str, Any]
_LISTED: Final = 6
_PIECE: Final = 1000
_TEXTS: Final = (".txt", ".md")


def read_bytes(raw: bytes, name: str) -> list[Row] | Parts:
    """The rows of a file named `name`, or, for a json object of parts, the raw tables by part.

    Raises:
        DataError: an empty file, an unknown suffix, undecodable bytes, malformed content with its line, no rows.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in _READERS:
        hint = f"known: {', '.join(SUFFIXES)}; anything else: read it into a DataFrame or a list of dicts and bind that"
        msg = f"{name}: cannot read files that end in {suffix!r}" if suffix else f"{name}: the name has no ending that says what it is"
        raise DataError(msg, hint=hint)
    if not raw.strip():
        msg = f"{name} is empty"
        raise DataError(msg, hint="check that it was saved, or written to the end")
    try:
        return _READERS[suffix](raw, suffix)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", hint=error.hint) from None


def _text(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        msg = "the file is UTF-16, not UTF-8"
        raise DataError(msg, hint="save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"line {line}: byte 0x{raw[error.start]:02x} is not UTF-8"
        raise DataError(msg, hint="save it as UTF-8; it may be Latin-1 or Windows-1252") from None


def _delimiter(text: str, suffix: str) -> str:
    """A tab for .tsv; else a comma, but where the header holds none and does hold a semicolon or a tab."""
    if suffix == ".tsv":
        return "\t"
    header = text.lstrip("\r\n").splitlines()[0]
    present = [mark for mark in (",", ";", "\t") if mark in header]
    return present[0] if present else ","


def _read_csv(raw: bytes, suffix: str) -> list[Row]:
    text = _text(raw)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, suffix), strict=True)
    header: list[str] = []
    rows: list[Row] = []
    lines: list[int] = []
    start = 1
    try:
        for cells in reader:
            if not cells:
                start = reader.line_num + 1
                continue
            if not header:
                header = _header(cells, start)
            elif len(cells) != len(header):
                msg = f"line {start} has {len(cells)} cells, the header has {len(header)}"
                raise DataError(msg, hint='put text that holds the delimiter between double quotes: "so, for one"')
            else:
                rows.append(dict(zip(header, cells, strict=True)))
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        msg = f"line {start}: {error}"
        raise DataError(
            msg, hint='double a quote inside quoted text: "so ""quoted"" text"; for very long cells use jsonl or parquet'
        ) from None
    if not rows:
        msg = "there is a header but no rows"
        raise DataError(msg, hint="give at least a handful of examples")
    return plain_rows(rows, where="line", lines=lines)


def _header(cells: list[str], line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    for position, name in enumerate(names, start=1):
        if not name:
            msg = f"line {line}: column {position} has no name"
            raise DataError(msg, hint="name every column in the first line")
        if names.index(name) != position - 1:
            msg = f"line {line}: two columns are named {name!r}"
            raise DataError(msg, hint="rename one of them")
    return names


def _unique_keys(pairs: list[tuple[str, Any]], line: int | None) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        place = "" if line is None else f"line {line}: "
        msg = f"{place}the key {twice!r} stands twice in one object"
        raise DataError(msg, hint="remove one of them")
    return table


def _parse_json(text: str, first_line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique_keys(pairs, first_line if "\n" not in text else None))
    except json.JSONDecodeError as error:
        msg = f"line {first_line + error.lineno - 1}, column {error.colno}: not JSON: {error.msg}"
        raise DataError(msg, hint=f"it reads: {text.split(chr(10))[error.lineno - 1].strip()[:60]!r}") from None
    except RecursionError:
        msg = f"line {first_line}: nested too deeply"
        raise DataError(msg, hint="rows are flat objects of column and value") from None
    except ValueError as error:  # a number of thousands of digits
        msg = f"line {first_line}: {error}"
        raise DataError(msg, hint="write such a number as text") from None


def _read_jsonl(raw: bytes, _suffix: str) -> list[Row]:
    rows: list[Any] = []
    lines: list[int] = []
    # str.splitlines would also cut at U+2028 and the like, which JSON text may hold unescaped.
    for number, line in enumerate(_text(raw).split("\n"), start=1):
        if line.strip():
            rows.append(_parse_json(line, number))
            lines.append(number)
    return plain_rows(rows, where="line", lines=lines)


def _read_json(raw: bytes, _suffix: str) -> list[Row] | Parts:
    data = _parse_json(_text(raw), 1)
    if isinstance(data, dict):
        if isinstance(data.get("data"), list):
            return plain_rows(data["data"])
        if data and all(isinstance(part, list) for part in data.values()) and "train" in data:
            return data
    if not isinstance(data, list):
        msg = "the json holds no list of rows"
        hint = 'write [{...}, {...}], {"data": [...]} or {"train": [...], "test": [...]}; one object a line is a .jsonl file'
        raise DataError(msg, hint=hint)
    return plain_rows(data)


def _read_parquet(raw: bytes, _suffix: str) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(raw))
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0][:120]
        msg = f"not a parquet file that can be read: {first}"
        raise DataError(msg, hint="write it again, for instance with DataFrame.to_parquet") from None
    names = table.column_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"two columns are named {twice!r}"
        raise DataError(msg, hint="rename one of them")
    return plain_rows(table.to_pylist())


def _read_conll(raw: bytes, _suffix: str) -> list[Row]:
    """A word a line with its columns, the tag last; an empty line between sentences."""
    rows: list[Row] = []
    lines: list[int] = []
    words: list[str] = []
    tags: list[str] = []
    columns = 0
    for number, line in enumerate([*_text(raw).split("\n"), ""], start=1):
        cells = line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if words:
                rows.append({"tokens": words, "tags": tags})
                words, tags = [], []
            continue
        columns = columns or len(cells)
        if len(cells) != columns or columns < 2:  # noqa: PLR2004  a word and its tag
            msg = f"line {number} has {len(cells)} columns" + (f", the first has {columns}" if len(cells) != columns else "")
            raise DataError(msg, hint="write a word and its tag on each line, and an empty line between sentences")
        if not words:
            lines.append(number)
        words.append(cells[0])
        tags.append(cells[-1])
    return plain_rows(rows, where="line", lines=lines)


def _read_text(raw: bytes, _suffix: str) -> list[Row]:
    return [{"text": piece} for piece in text_pieces(_text(raw))]


def text_pieces(text: str) -> list[str]:
    """The paragraphs of a text (empty lines stand between them), joined until a piece has 1,000 characters: what one row of it is."""
    pieces: list[str] = []
    open_piece = False
    for paragraph in (part.strip("\n") for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))):
        if not paragraph.strip():
            continue
        if open_piece:
            pieces[-1] += "\n\n" + paragraph
        else:
            pieces.append(paragraph)
        open_piece = len(pieces[-1]) < _PIECE
    return pieces


def decoded(raw: bytes, name: str) -> str:
    """The text of a file called `name`.

    Raises:
        DataError: it is not UTF-8; says which line.
    """
    try:
        return _text(raw)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", hint=error.hint) from None


def visible_files(folder: Path) -> Iterator[Path]:
    """The files of a folder and those below it, none that is hidden or lies in a hidden folder.

    Raises:
        DataError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}", hint="check its permissions") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))


def read_folder(folder: Path) -> list[Row] | None:
    """The texts (txt, md) of a folder and those below it but hidden ones, in pieces, each with its `file`; None: it holds none.

    Raises:
        DataError: one of them cannot be read.
    """
    files = sorted(path for path in visible_files(folder) if path.suffix.lower() in _TEXTS and path.is_file())
    rows: list[Row] = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            raw = path.read_bytes()
        except OSError as error:
            message = f"{name} cannot be read: {error.strerror or error}"
            raise DataError(message, hint="check its permissions") from None
        if raw.strip():
            rows += [{"text": piece, "file": name} for piece in text_pieces(decoded(raw, name))]
    return rows or None


_READERS: Final[dict[str, Callable[[bytes, str], list[Row] | Parts]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".conll": _read_conll,
    ".bio": _read_conll,
    ".iob": _read_conll,
    ".txt": _read_text,
    ".md": _read_text,
}
SUFFIXES: Final[tuple[str, ...]] = tuple(_READERS)
"""The endings of the files that can be read."""


def find_file(text: str, folder: Path | None) -> Path:
    """The file, or the folder of texts, that `text` names, relative to `folder` (left out: the working folder).

    Raises:
        DataError: there is none (the likeliest of its folder is named), or it is a folder without texts.
    """
    path = Path(text).expanduser()
    path = path if path.is_absolute() else (folder or Path.cwd()) / path
    if path.is_dir() and not any(item.suffix.lower() in _TEXTS for item in visible_files(path)):
        names = _readable(path)
        hint = f"name a file in it: {', '.join(names[:_LISTED])}" if names else "name a csv, jsonl, json or parquet file"
        msg = f"{text} is a folder"
        raise DataError(msg, hint=hint)
    if not path.exists():
        if not path.parent.is_dir():
            msg = f"there is no folder {path.parent}"
            raise DataError(msg, hint=f"looked for {text}; a path is relative to {folder or Path.cwd()}")
        names = _readable(path.parent)
        hint = did_you_mean(path.name, names) if names else f"no csv, jsonl, json or parquet file is in {path.parent}"
        msg = f"there is no file {text}"
        raise DataError(msg, hint=hint)
    return path


def _readable(folder: Path) -> list[str]:
    try:
        return sorted(item.name for item in folder.iterdir() if item.suffix.lower() in SUFFIXES)
    except OSError:
        return []
