"""Turns benchmarks/results/*.json into docs/benchmarks.md and docs/images/benchmarks.png.

python -m benchmarks.report [--results FOLDER] [--docs FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.picture import draw
from benchmarks.tables import page
from fastinterp._utils.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]


ORDER = ("cpu-ops", "cpu-kendall", "cpu-train", "cpu-attacks")  # GPUs follow


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results files, in the order of the page."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: ORDER.index(r["name"]) if r["name"] in ORDER else len(ORDER))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    results = read_results(options.results)
    picture = options.docs / "images" / "benchmarks.png"
    drawn = bool(results) and draw(results, picture)
    if not drawn:
        picture.unlink(missing_ok=True)
    with atomic_path(options.docs / "benchmarks.md") as temporary:
        temporary.write_text(page(results, picture=drawn), encoding="utf-8")
    print(f"wrote benchmarks.md from {len(results)} results files")


if __name__ == "__main__":
    main()
