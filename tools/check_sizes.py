"""Fails where a source file has outgrown one concept: more than 400 lines."""

import sys
from pathlib import Path

LIMIT = 400
FOLDERS = ("nbtune", "magics", "widgets")
ENDINGS = {".py", ".ts", ".css", ".mjs"}
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Name each file over the limit; 1 where there is any."""
    sources = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in ENDINGS)
    too_long = 0
    for path in sources:
        if "node_modules" in path.parts or "static" in path.parts:
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LIMIT:
            print(f"{path.relative_to(ROOT)} has {lines} lines, at most {LIMIT} are allowed: one concept a file")
            too_long += 1
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
