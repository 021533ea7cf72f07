"""The longer notebooks, executed on the real models; their grids are printed, and they are kept with their outputs in build/.

make bench B=notebooks [ARGS="03_encoders"]
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "01_quickstart"  # `make tour` executes that one


def main() -> int:
    """Executes those that are named, or all; 1 where one of them fails."""
    there = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem != QUICKSTART}
    names = sys.argv[1:] or list(there)
    if unknown := [name for name in names if name not in there]:
        print(f"there is no notebook {unknown[0]!r}; there are: {', '.join(there)}", file=sys.stderr)
        return 2
    spec = importlib.util.spec_from_file_location("tour", ROOT / "tools" / "tour.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(ROOT / "tools" / "tour.py")
    tour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tour)
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    return max(tour.execute(there[name], folder) for name in names)


if __name__ == "__main__":
    sys.exit(main())
