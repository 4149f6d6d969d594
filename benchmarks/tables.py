"""The page of results: a heading for each file, a table for each section."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

INTRODUCTION = """\
# Benchmarks

`make bench` measures the CPU, `python benchmarks/gpu_check.py` a GPU; both write
`benchmarks/results/*.json`, and `make bench-report` writes this page from those files. With
`NETWORKS=FOLDER DATA_DIR=FOLDER`, the released networks and MNIST, attacks are timed on the
released Int network; without, on a network trained on digits there and then.

All entries of a group are timed in turn, in one process; a time is the median over the rounds, in
brackets the quartiles. In each round a brief entry runs once unmeasured and then over and over for
8 ms or more: the figures are for repeated calls, with operands where these leave them. "x" says
how many times faster than the group's baseline an entry is. The floor is measured in the same run:

- for an op, a copy that reads and writes as many bytes as the op must move at least or, where that
  takes longer, as many of torch's matrix products as it must make at least;
- for a training iteration, its float32 convolutions and ReLUs alone: forward at x, for each inner
  step forward at x' and backward to the image, forward at x' once more, and one backward pass to
  the weights, with constant gradients at the last maps and no loss, step or optimiser. They are
  the trainer's own, with the classifier folded into the last convolution where it can be; those of
  the network as it is written stand beside them, as torch runs them;
- for an attack, the network's forward and backward passes alone.

Floors are torch's own calls, so a kernel that does such work faster than torch can lie above 100%.

"Forward" runs without autograd; "backward" starts from a graph that is kept. "One call" is
`ops.discrepancy_and_gradient`, which gives value and gradient without autograd: what the library's
own inner loops use.
"""
EMPTY = "\nNo results files are here yet.\n"
WIDE = 2  # sections of more groups than this get one row a group


def page(results: list[Record], picture: bool) -> str:
    """The whole page, Markdown."""
    parts = [INTRODUCTION]
    if picture:
        parts.append("![Speed against the baselines, and growth](images/benchmarks.png)\n")
    if not results:
        parts.append(EMPTY)
    for result in results:
        parts.append(f"## {result['name']}\n\n{_about(result)}\n")
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
        said.append("**The machine was busy: these figures tell little.**")
    return " ".join(said)


def _checks(checks: dict[str, Record]) -> str:
    rows = [[name, "passed" if check["passed"] else "FAILED"] for name, check in checks.items()]
    return _table(["check", "result"], rows)


def _section(name: str, groups: list[Record]) -> str:
    table = _wide(groups) if len(groups) > WIDE else "\n".join(map(_long, groups))
    reasons = {f"Left out: {e}: {why}" for g in groups for e, why in g["skipped"].items()}
    reasons |= {f"Failed: {e}: {why}" for g in groups for e, why in g.get("failed", {}).items()}
    left_out = "".join(f"\n{reason}\n" for reason in sorted(reasons))
    return f"### {name}\n\n{_baseline(groups)}\n\n{table}{left_out}"


def _baseline(groups: list[Record]) -> str:
    first = groups[0]
    floor = f" Floor: {first['floor']}." if first["floor"] else ""
    precisions = _precisions(groups)
    same = f" Precision: {precisions.pop()}." if len(precisions) == 1 else ""
    return f"Baseline: {first['baseline']}.{floor}{same}"


def _precisions(groups: list[Record]) -> set[str]:
    """Those that the entries name; older files name none."""
    return {e["precision"] for g in groups for e in g["entries"] if "precision" in e}


def _wide(groups: list[Record]) -> str:
    """A row a group: each entry's median, and the ratio and share of the floor of ours, and the
    ratio of other ways to call it, "ours, this way"."""
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
    """What grows, or the title, less what the heading says already."""
    if group["axis"] is not None:
        return f"{group['axis'][1]:g}"
    title: str = group["title"]
    words = group["section"].split(", ")
    for word in words:
        title = title.replace(f", {word}", "").removeprefix(f"{word} ")
    return title


def _long(group: Record) -> str:
    """A row an entry, with whatever else was recorded of it."""
    known = {"name", "rounds", "microseconds", "ratio", "percent_of_floor"}
    if len(_precisions([group])) == 1:
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
