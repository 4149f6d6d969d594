"""Measures Kendall's tau under `--protocol best` and shows it beside the paper's attack, on MNIST.

python docs/map_tables.py --networks NETWORKS --data-dir DATA

NETWORKS holds the authors' released files. Rows that docs/results/maps-best.json already has are
not measured again, so an interrupted run continues. The table is docs/results/maps-best.md, and
its figures of the paper's attack are those in table2.json and tableA4.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastinterp import data, models  # noqa: E402
from fastinterp._utils.files import write_json  # noqa: E402
from fastinterp.evaluation import markdown_table  # noqa: E402
from fastinterp.evaluation.by_attack import Request, measure  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
STEPS = 100
Row = dict[str, Any]
NONE: Row = {"kendall_tau": None}


def paper_rows() -> list[Row]:
    """The rows of Tables 2 and A4 on MNIST whose network was there."""
    rows = []
    for name in ("table2", "tableA4"):
        found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["rows"]
        rows += [r for r in found if r["dataset"] == "mnist" and r["network"] is not None]
    return rows


def measure_all(networks: Path, data_dir: str, out: Path) -> list[Row]:
    """The rows of `out`, and those that it lacks, each written as soon as it is measured."""
    rows: list[Row] = json.loads(out.read_text("utf-8"))["rows"] if out.exists() else []
    done = {row["network"] for row in rows}
    images = data.load("mnist", data_dir)
    paper = paper_rows()
    for name in dict.fromkeys(row["network"] for row in paper):
        if name in done:
            continue
        wanted = [row for row in paper if row["network"] == name]
        model = models.load(networks / name)
        start = time.monotonic()
        eps = [row["eps"] for row in wanted]
        request = Request(model, images, protocol="best", eps=eps, steps=[STEPS])
        for row, best in zip(wanted, measure("aai", request), strict=True):
            keys = ("model", "method", "network")
            rows.append({**{key: row[key] for key in keys}, **best})
        about = {"protocol": "best", "dataset": "mnist", "attack": "aai", "seed": 0}
        write_json(out, {**about, "rows": rows})
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return rows


def table(rows: list[Row], paper: list[Row]) -> str:
    """Markdown: a table for each architecture, a cell `the paper's attack / best`."""
    parts = ["# Kendall's tau under AAI: the paper's attack / the strongest found"]
    attacked = {(row["network"], row["eps"]): row["ours"] for row in paper}
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        columns = sorted({row["eps"] for row in mine})
        body = []
        for network in dict.fromkeys(row["network"] for row in mine):
            cells = {row["eps"]: row for row in mine if row["network"] == network}
            pairs = [(attacked.get((network, eps)), cells.get(eps, NONE)) for eps in columns]
            shown = [f"{_figure(one)} / {_figure(best['kendall_tau'])}" for one, best in pairs]
            body.append([next(iter(cells.values()))["method"], *shown])
        header = ["method", *(f"eps {eps:g}" for eps in columns)]
        parts += [f"mnist, {model}", markdown_table(header, body)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _figure(tau: float | None) -> str:
    return "-" if tau is None else f"{tau:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--data-dir", required=True)
    args = parser.parse_args()
    out = RESULTS / "maps-best.json"
    rows = measure_all(args.networks, args.data_dir, out)
    out.with_suffix(".md").write_text(table(rows, paper_rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
