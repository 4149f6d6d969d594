"""Training steps on one and two processes of this machine, into docs/scaling.md.

    python -m benchmarks.processes

Run it when nothing else runs: it takes some minutes, measures, and writes the table between the
page's marks, with the load that the machine had before. Each process has one thread. The processes
take turns of five steps, so that a change in the machine's speed affects both numbers of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from fastinterp import training
from fastinterp._utils import processes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BATCHES = (50, 200)  # of digits-small-int
TURNS, ROUNDS = 3, 5
COMPUTED = (4, 8)


def measure() -> dict[str, float]:
    """The seconds of a step by batch size, and of the exchange of the gradients alone."""
    torch.set_num_threads(1)
    processes.join()
    found = {}
    for batch in BATCHES:
        recipe = training.load_recipe("digits-small-int", {"batch_size": batch, "steps": 10})
        step = training.time_recipes([recipe], rounds=ROUNDS, progress=False)[0]
        found[str(batch)] = step.seconds
    size = sum(
        p.numel()
        for p in training.recipe.make_trainer(
            recipe, training.recipe.training_data(recipe, None)[0], "cpu"
        ).model.parameters()
    )
    flat, spent = torch.zeros(size), []
    for _ in range(30):
        began = time.perf_counter()
        processes.add_up(flat)
        spent.append(time.perf_counter() - began)
    return found | {"exchange": statistics.median(spent), "parameters": size}


def launch(count: int) -> dict[str, float]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += ["--nproc_per_node", str(count), "-m", "benchmarks.processes", "--measure"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[int, dict[str, float]], load: float) -> str:
    """The figures of one process and of two, and those computed from them for more.

    Args:
        found: by number of processes, what `measure` returned.
        load: the machine's, before the measurement.
    """
    batches = " | ".join(f"batch {batch}, ms a step" for batch in BATCHES)
    lines = [f"| processes | {batches} | of that exchange, ms | |"]
    lines.append("|---" * (len(BATCHES) + 3) + "|")
    for count in (1, 2, *COMPUTED):
        spent = 0.0 if count == 1 else found[2]["exchange"] * 2 * (count - 1) / count
        if count in found:
            steps, how = [found[count][str(batch)] for batch in BATCHES], "measured"
        else:
            steps, how = [found[1][str(batch)] / count + spent for batch in BATCHES], "computed"
        shown = " | ".join(f"{1000 * one:.1f}" for one in (*steps, spent))
        lines.append(f"| {count} | {shown} | {how} |")
    lines.append(
        f"\nInt with 10 inner steps on digits, network Small of {found[1]['parameters']:,.0f} "
        f"parameters; medians of {TURNS} runs on {os.cpu_count()} cores, one thread a process, "
        f"torch {torch.__version__}; the machine's load was {load:.1f}."
    )
    return "\n".join(lines)


def write(text: str, page: Path) -> None:
    """Put a text between the marks of a page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END} to write between.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    load = os.getloadavg()[0]
    turns = [{count: launch(count) for count in (1, 2)} for _ in range(TURNS)]
    found = {
        count: {key: statistics.median(turn[count][key] for turn in turns) for key in turns[0][1]}
        for count in (1, 2)
    }
    write(table(found, load), PAGE)


if __name__ == "__main__":
    if "--measure" in sys.argv:
        result = measure()
        if processes.rank() == 0:
            print(json.dumps(result), flush=True)
    else:
        main()
