"""One door for all data: a path, a demo, a DataFrame, rows, a Dataset, or a mapping of parts to any of these."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from nbtune.data.files import find_file, read_bytes, read_folder
from nbtune.data.rows import Row, plain_rows
from nbtune.errors import DataError, did_you_mean

__all__ = ["DEMOS", "read"]

DEMOS: Final[dict[str, str]] = {"tickets": "tickets.csv", "dates": "dates.jsonl"}
"""The data sets that come along: "demo:NAME" reads them."""

_PARTS: Final[dict[str, str]] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}


def read(data: Any, *, folder: Path | None = None) -> dict[str, list[Row]]:
    """The rows of `data` by part: {"all": rows}, or {"train": ...} with "dev" and "test" where given.

    Values are plain (see `plain_value`); csv cells are text; class numbers of a `datasets` ClassLabel become their names.

    Args:
        data: path, "demo:NAME", DataFrame, list of dicts, Dataset, DatasetDict, or a mapping of train, dev, test to these.
        folder: what relative paths are relative to; left out, the working folder.

    Raises:
        DataError: the data cannot be found or read; says which line or row.
    """
    if isinstance(data, Mapping):
        return _read_parts(data, folder)
    if isinstance(data, str | Path):
        found = _read_path(str(data), folder)
        return _read_parts(found, folder) if isinstance(found, Mapping) else {"all": found}
    return {"all": _read_object(data)}


def _read_parts(data: Mapping[Any, Any], folder: Path | None) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {}
    for key, value in data.items():
        part = _PARTS.get(str(key))
        if part is None:
            near = did_you_mean(str(key), ("train", "dev", "test"))
            shapes = 'give {"train": ..., "dev": ..., "test": ...}, or one table as a DataFrame or a list of dicts'
            hint = near if near.startswith("did") and any(other in _PARTS for other in data) else shapes
            msg = f"unknown part of the data {str(key)!r}"
            raise DataError(msg, hint=hint)
        if part in parts:
            msg = f"the data has two parts for {part!r}"
            raise DataError(msg, hint="keep one of them")
        try:
            inner = read(value, folder=folder)
        except DataError as error:
            raise DataError(f"{key}: {error.message}", hint=error.hint) from None
        if "all" not in inner:
            msg = f"{key}: the data of one part is itself divided into parts"
            raise DataError(msg, hint="give each part one table")
        parts[part] = inner["all"]
    if "train" not in parts:
        msg = "the data has no train part" + (f", only {', '.join(parts)}" if parts else "")
        raise DataError(msg, hint='give {"train": ...}; dev and test may be left out')
    return {part: parts[part] for part in ("train", "dev", "test") if part in parts}


def _read_path(text: str, folder: Path | None) -> list[Row] | dict[str, Any]:
    if text.startswith("demo:"):
        return _read_demo(text.removeprefix("demo:"))
    if not text.strip():
        msg = "no data is named"
        raise DataError(msg, hint="name a file, or bind a DataFrame")
    path = find_file(text, folder)
    if path.is_dir():
        rows = read_folder(path)
        if rows is None:
            msg = f"all texts in the folder {text} are empty"
            raise DataError(msg, hint="check that they were saved")
        return rows
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{text} cannot be read: {error.strerror or error}"
        raise DataError(msg, hint="check its permissions") from None
    return read_bytes(raw, path.name)


def _read_demo(name: str) -> list[Row] | dict[str, Any]:
    if name not in DEMOS:
        msg = f"there is no demo data {name!r}"
        raise DataError(msg, hint=did_you_mean(name, DEMOS))
    source = resources.files("nbtune").joinpath("demos", DEMOS[name])
    try:
        return read_bytes(source.read_bytes(), DEMOS[name])
    except FileNotFoundError:
        msg = f"the demo data {name!r} is not in this installation"
        raise DataError(msg, hint="install nbtune again") from None


def _read_object(data: Any) -> list[Row]:
    if isinstance(data, list | tuple):
        return plain_rows(data)
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _read_frame(data)
    if hasattr(data, "features") and hasattr(data, "to_list"):
        return _read_dataset(data)
    if hasattr(data, "to_dicts") and hasattr(data, "columns"):  # polars
        return plain_rows(data.to_dicts())
    if hasattr(data, "to_pylist") and hasattr(data, "column_names"):  # pyarrow
        return plain_rows(data.to_pylist())
    msg = f"cannot read rows from {type(data).__module__}.{type(data).__qualname__}".replace("builtins.", "")
    raise DataError(msg, hint="give a path, a DataFrame, a list of dicts, a Dataset, or {train:, dev:, test:} of these")


def _read_frame(frame: Any) -> list[Row]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"the DataFrame has two columns named {twice!r}"
        raise DataError(msg, hint="rename one of them")
    columns = [frame.iloc[:, position].tolist() for position in range(len(names))]
    return plain_rows(dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _read_dataset(dataset: Any) -> list[Row]:
    classes = {name: list(feature.names) for name, feature in dataset.features.items() if hasattr(feature, "int2str")}
    rows = dataset.to_list()
    for name, names in classes.items():
        for row in rows:
            number = row[name]
            row[name] = names[number] if isinstance(number, int) and 0 <= number < len(names) else None
    return plain_rows(rows)
