"""What is asked of a running loop: lines of `control.jsonl`, looked at between steps. Any process may write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Controls"]


class Controls:
    """Reads what was added since the last look; a look at an unchanged file is one `stat`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Requests not seen before, in the order they were written."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            request = json.loads(line)
            if isinstance(request, dict) and isinstance(request.get("action"), str):
                yield request
