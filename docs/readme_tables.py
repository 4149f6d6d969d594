"""Puts measured tables into README.md and docs/, between the marks that name their files.

python docs/readme_tables.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import duration  # noqa: E402

# Of the benchmarks' many groups, those that answer a reader's first question, in a reader's words.
SHOWN = {
    "Int, MNIST Small, batch 50, 40 steps": "one Int training step: MNIST Small, 50 images, 40 "
    "inner steps",
    "discrepancy 50x100x7x7-C10, gradient for A' alone, both": "discrepancy and its gradient, 50 "
    "images, 100 maps of 7x7, 10 classes",
    "discrepancy 128x64x8x8-C10, gradient for A' alone, both": "the same, 128 images, 64 maps of "
    "8x8, 10 classes",
    "pgd_step linf 50x1x28x28": "a PGD step in linf, 50 images of 1x28x28",
    "pgd_step linf 128x3x32x32": "a PGD step in linf, 128 images of 3x32x32",
    "kendall_tau 500x49": "Kendall's tau of 500 pairs of 7x7 maps",
    "PGD, 200 images, eps 0.1, 40 steps of 0.01": "PGD, 200 images, 40 steps",
}
# How else ours is called.
WAYS = {"one call": "without autograd"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HEAD = "| measured | here | against | that takes | times faster |\n|---|--:|---|--:|--:|"


def tables_of(page: Path) -> str:
    """The headings and tables of a page that `fastinterp reproduce` wrote."""
    lines = page.read_text(encoding="utf-8").splitlines()[1:]
    return "\n".join(lines).strip()


def speeds_of(results: Path) -> str:
    """A row a group of `SHOWN`, from the CPU's results files in a folder."""
    files = [json.loads(path.read_text("utf-8")) for path in sorted(results.glob("cpu-*.json"))]
    groups = {group["title"]: group for found in files for group in found["groups"]}
    return "\n".join([HEAD, *(row for title in SHOWN for row in _rows(groups[title]))])


def _rows(group: dict[str, Any]) -> Iterator[str]:
    by_name = {entry["name"]: entry for entry in group["entries"]}
    base = by_name[group["baseline"]]["microseconds"]["median"]
    for name in (n for n in by_name if n == group["ours"] or n.startswith(f"{group['ours']}, ")):
        ours = by_name[name]["microseconds"]["median"]
        way = name.removeprefix(group["ours"]).removeprefix(", ")
        what = ", ".join(filter(None, (SHOWN[group["title"]], WAYS.get(way, way))))
        yield (
            f"| {what} | {duration(ours)} | {group['baseline']} | {duration(base)} "
            f"| {base / ours:.1f} |"
        )


def best_of(results: Path) -> str:
    """Accuracies over eps from best-NAME.json, as `eval --protocol best` wrote them."""
    rows: dict[str, dict[float, float]] = {}
    for name, title in (("int", "Int"), ("adv", "Adv"), ("trades", "TRADES")):
        found = json.loads((results / f"best-{name}.json").read_text(encoding="utf-8"))
        rows[title] = {row["eps"]: row["accuracy"] for row in found["rows"]}
    radii = list(rows["Int"])
    head = "| eps | " + " | ".join(f"{eps:g}" for eps in radii) + " |\n|---|" + "--:|" * len(radii)
    lines = [
        f"| {title} | " + " | ".join(f"{found[eps]:.3f}" for eps in radii) + " |"
        for title, found in rows.items()
    ]
    return "\n".join([head, *lines])


def fill(page: Path) -> str:
    """A page's text with its tables as they were last measured."""
    text = page.read_text(encoding="utf-8")
    for mark, write in (("table", tables_of), ("speed", speeds_of), ("best", best_of)):
        text = re.sub(
            rf"(<!-- {mark}: (\S+) -->\n).*?(<!-- end -->)",
            lambda m, write=write: f"{m[1]}\n{write(ROOT / m[2])}\n\n{m[3]}",
            text,
            flags=re.DOTALL,
        )
    return text


def main() -> None:
    for page in PAGES:
        page.write_text(fill(page), encoding="utf-8")


if __name__ == "__main__":
    main()
