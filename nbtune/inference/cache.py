"""What a model has answered before, kept by the content of the question: a grid asked again costs little, a changed row little more.

A question is the model's own numbers, what was learnt on it, the token ids that it reads, and how its answer is read or written. Only
its hash is kept, beside the answer and the seconds that it took.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nbtune.models.fingerprint import fingerprint, sum_of
from nbtune.models.strength import scalings
from nbtune.store import home

if TYPE_CHECKING:
    from nbtune.inference.engine import Engine

__all__ = ["AnswerCache", "question_keys"]

_FORMAT: Final = "3"
"""Another one where what is asked, or how, comes to mean something else."""
_MOST: Final = 200_000
_TABLE: Final = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"
_ONCE: Final = 500
"""Keys of one query."""


def question_keys(engine: Engine, prompts: Sequence[Sequence[int]], how: Any) -> list[str]:
    """A key for each prompt (token ids), asked `how` (anything that JSON can hold)."""
    model = _model_key(engine)
    return [hashlib.sha256(json.dumps([model, list(ids), how]).encode()).hexdigest() for ids in prompts]


def _model_key(engine: Engine) -> str:
    import torch
    import transformers

    base = engine.base
    said = [_FORMAT, torch.__version__, transformers.__version__]
    said += [fingerprint(base), str(base.dtype), str(base.quantization), base.device.type]
    name = engine.adapter
    if name is not None:
        learnt = base.state(name)
        said.append(json.dumps(learnt.config.to_dict() if learnt.config is not None else None, sort_keys=True, default=_plain))
        said += [sum_of(learnt), json.dumps(scalings(base, name))]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


class AnswerCache:
    """Answers by key, in one file of the project. Where that cannot be read or written nothing is kept, which `trouble` tells."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.trouble: str | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path or home() / "cache" / "answers.sqlite"

    def get(self, keys: Sequence[str]) -> dict[str, tuple[Any, float]]:
        """{key: (answer, seconds that it took)} of those that are there."""
        found: dict[str, tuple[Any, float]] = {}
        if not self.path.exists():
            return found
        with self._told(), self._opened() as file:
            for start in range(0, len(keys), _ONCE):
                some = keys[start : start + _ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT key, value, seconds FROM answers WHERE key IN ({marks})", some)  # noqa: S608  question marks alone
                found.update({key: (json.loads(value), float(seconds)) for key, value, seconds in rows})
        return found

    def put(self, answers: dict[str, Any], seconds: float) -> None:
        """Keeps answers that took so many seconds each."""
        with self._told(), self._opened() as file:
            file.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", [(key, json.dumps(value), seconds) for key, value in answers.items()]
            )
            over = int(file.execute("SELECT COUNT(*) FROM answers").fetchone()[0]) - _MOST
            if over > 0:
                file.execute("DELETE FROM answers WHERE key IN (SELECT key FROM answers LIMIT ?)", (over,))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self.trouble = f"answers are not kept in {self.path}: {error}; delete it to begin anew"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute(_TABLE)
            yield connection
