"""A task's rows on disk: one parquet file, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbtune.data.examples import Example, example_key
from nbtune.errors import DataError

__all__ = ["read_examples", "write_examples", "write_whole"]


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Writes split, index, prompt, completion, label and the row as JSON text."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            ("split", pa.string()),
            ("index", pa.int64()),
            ("prompt", pa.large_string()),
            ("completion", pa.large_string()),
            ("label", pa.string()),
            ("row", pa.large_string()),
        ]
    )
    columns = {name: [getattr(example, name) for example in examples] for name in ("split", "index", "prompt", "completion", "label")}
    columns["row"] = [json.dumps(dict(example.row), ensure_ascii=False) for example in examples]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns, schema=schema), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_examples(path: Path) -> tuple[Example, ...]:
    """The examples of a file written by `write_examples`.

    Raises:
        DataError: the file is not there, or is not such a file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path, columns=["split", "index", "prompt", "completion", "label", "row"]).to_pylist()
        return tuple(
            Example(
                index=row["index"],
                split=row["split"],
                row=json.loads(row["row"]),
                prompt=row["prompt"],
                completion=row["completion"],
                label=row["label"],
                key=example_key(row["prompt"], row["completion"]),
            )
            for row in rows
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} does not hold a task's rows: {str(error).splitlines()[0][:120]}"
        raise DataError(msg, hint="save the task again") from None


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file beside its place and moves it there, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
