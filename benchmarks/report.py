"""Turns benchmarks/results/*.json into docs/benchmarks.md and docs/images/benchmarks.png.

python -m benchmarks.report [--results FOLDER] [--docs FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.picture import draw
from benchmarks.record import ROOT

Record = dict[str, Any]

OPS = ("discrepancy", "cam", "pgd_step", "kendall_tau", "conv_stack", "image_gradient")
ORDER = [f"cpu-{n}" for n in (*OPS, "train", "attacks", "integrated_gradients")]  # GPUs follow
INTRODUCTION = """\
# Benchmarks

`make bench` measures the CPU, `python benchmarks/gpu_check.py` a GPU; both write
`benchmarks/results/*.json`, and `make bench-report` writes this page from those files. With
`NETWORKS=FOLDER DATA_DIR=FOLDER`, the released networks and MNIST, attacks are timed on the
released Int network; without them, on a network that is trained on digits first.

All entries of a group are timed in turn, in one process. A time is the median over the rounds, with
the quartiles in brackets. In each round a brief entry runs once unmeasured and then again and again
for at least 8 ms, so the figures are for repeated calls, with their operands in the caches where
these are large enough. "x" says how many times faster than the group's baseline an entry is. The
floor is measured in the same run:

- for an op, the slower of two: a copy that reads and writes as many bytes as the op must move at
  least, and as many of torch's matrix products as it must compute at least;
- for a training iteration, its float32 convolutions and ReLUs alone: forward at x, for each inner
  step forward at x' and backward to the image, forward at x' once more, and one backward pass to
  the weights, with constant gradients at the last maps and no loss, step or optimiser. They run as
  in the trainer, with the classifier folded into the last convolution where that is possible. Those
  of the network without folding, as torch runs them, are entries of their own;
- for an attack, the network's forward and backward passes alone.

Floors are torch's own calls, so a kernel that does such work faster than torch can exceed 100%.

"Forward" runs without autograd; "backward" starts from a graph that is retained. "One call" is
`ops.discrepancy_and_gradient`, which gives value and gradient without autograd: the library's own
inner loops use it.
"""
EMPTY = "\nThere are no results files yet.\n"
WIDE = 2  # a section with more groups than this has one row for each group


def page(results: list[Record], picture: bool) -> str:
    """The whole page, Markdown."""
    parts = [INTRODUCTION]
    if picture:
        parts.append("![Speed against the baselines, and growth](images/benchmarks.png)\n")
    if not results:
        parts.append(EMPTY)
    before = ""
    for result in results:
        about = _about(result)
        shown = about if about != before else "Machine, versions and commit as above."
        parts.append(f"## {result['name']}\n\n{shown}\n")
        before = about
        if result.get("checks"):
            parts.append(_checks(result["checks"]))
        sections: dict[str, list[Record]] = {}
        for group in result["groups"]:
            sections.setdefault(group["section"], []).append(group)
        parts += [_section(name, groups) for name, groups in sections.items()]
    return "\n".join(parts)


def _about(result: Record) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine["gpu"] if result["name"].startswith("gpu") else machine["cpu"]
    commit = (result["commit"] or "unknown")[:10] + (" with changes" if result["modified"] else "")
    said = [
        f"{where}; {machine['cores']} CPU cores, {machine['threads']} threads, "
        f"{machine['vectors']}; load before {machine['load_before']}.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"Commit {commit}, {result['date'][:10]}, up to {result['rounds']} rounds.",
    ]
    if machine["busy"]:
        said.append("**The machine was busy, so these times mean little.**")
    return " ".join(said)


def _checks(checks: dict[str, Record]) -> str:
    rows = [[name, "passed" if check["passed"] else "FAILED"] for name, check in checks.items()]
    return _table(["check", "result"], rows)


def _section(name: str, groups: list[Record]) -> str:
    wide = len(groups) > WIDE
    table = _wide(groups) if wide else "\n".join(map(_long, groups))
    reasons = {f"Not run: {e}: {why}" for g in groups for e, why in g["skipped"].items()}
    reasons |= {f"Failed: {e}: {why}" for g in groups for e, why in g.get("failed", {}).items()}
    notes = "".join(f"\n{reason}\n" for reason in sorted(reasons))
    first, precisions = groups[0], _precisions(groups)
    said = f"Baseline: {first['baseline']}."
    said += f" Floor: {first['floor']}." if first["floor"] else ""
    if len(set(precisions.values())) == 1:
        said += f" Precision: {next(iter(precisions.values()))}."
    elif wide:  # a long table has a column of precisions
        listed = (f"{entry}: {one}" for entry, one in precisions.items())
        said += f" Precision of {'; '.join(listed)}." if precisions else ""
    return f"### {name}\n\n{said}\n\n{table}{notes}"


def _precisions(groups: list[Record]) -> dict[str, str]:
    """By entry. Older files name none."""
    return {e["name"]: e["precision"] for g in groups for e in g["entries"] if "precision" in e}


def _wide(groups: list[Record]) -> str:
    """One row for each group: the median of each entry; for ours also the ratio, the share of the
    floor and the quartiles; and the ratio of other ways to call ours, named "ours, this way"."""
    names = list(dict.fromkeys(e["name"] for g in groups for e in g["entries"]))
    ours = groups[0]["ours"]
    ways = [name for name in names if name.startswith(f"{ours}, ")]
    head = ["case", *names, f"{ours}: x", f"{ours}: % of floor", f"{ours}: quartiles"]
    head += [f"{way}: x" for way in ways]
    rows = []
    for group in groups:
        by_name = {e["name"]: e for e in group["entries"]}
        row = [_short(group)]
        row += [duration(by_name[n]["microseconds"]["median"]) if n in by_name else "-"
                for n in names]  # fmt: skip
        mine = by_name.get(ours, {})
        row += [ratio(mine), percent(mine), quartiles(mine) if mine else "-"]
        row += [ratio(by_name.get(way, {})) for way in ways]
        rows.append(row)
    return _table(head, rows)


def _short(group: Record) -> str:
    """The value that grows, or the title without the words of the section."""
    if group["axis"] is not None:
        return f"{group['axis'][1]:g}"
    title: str = group["title"]
    words = group["section"].split(", ")
    for word in words:
        title = title.replace(f", {word}", "").removeprefix(f"{word} ")
    return title


def _long(group: Record) -> str:
    """One row for each entry, with all that was recorded of it."""
    known = {"name", "rounds", "microseconds", "ratio", "percent_of_floor"}
    if len(set(_precisions([group]).values())) == 1:
        known.add("precision")
    extra = list(dict.fromkeys(k for e in group["entries"] for k in e if k not in known))
    head = [group["title"], "median", "quartiles", "x", "% of floor", "rounds"]
    rows = [
        [
            entry["name"],
            duration(entry["microseconds"]["median"]),
            quartiles(entry),
            ratio(entry),
            percent(entry),
            str(entry["rounds"]),
            *(_value(entry.get(key)) for key in extra),
        ]
        for entry in group["entries"]
    ]
    return _table([*head, *(key.replace("_", " ") for key in extra)], rows)


def duration(microseconds: float) -> str:
    """Three digits and a unit."""
    microseconds = float(f"{microseconds:.3g}")
    for limit, unit in ((1e3, "us"), (1e6, "ms"), (float("inf"), "s")):
        if microseconds < limit:
            return f"{microseconds / (limit / 1e3 if limit < 1e9 else 1e6):.3g} {unit}"
    raise ValueError(f"not a duration: {microseconds}")


def quartiles(entry: Record) -> str:
    times = entry["microseconds"]
    return f"[{duration(times['lower'])}, {duration(times['upper'])}]"


def ratio(entry: Record) -> str:
    return f"{entry['ratio']:.2f}" if "ratio" in entry else "-"


def percent(entry: Record) -> str:
    if "percent_of_floor" not in entry:
        return "-"
    value = entry["percent_of_floor"]
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(f"{v:.3g}" for v in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def read_results(folder: Path) -> list[Record]:
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
    drawn = draw(results, picture)
    if not drawn:
        picture.unlink(missing_ok=True)
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / "benchmarks.md").write_text(page(results, picture=drawn), encoding="utf-8")
    print(f"wrote benchmarks.md from {len(results)} results files")


if __name__ == "__main__":
    main()
