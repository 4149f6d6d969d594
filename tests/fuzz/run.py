"""The whole campaign: `make fuzz`, about twenty minutes on two cores.

    python tests/fuzz/run.py [--page FILE] [--share X] [--only PART ...] [--seed N]

Prints every finding with its part and seed (`--only PART --seed N --share 0` tries that one again)
and exits with 1 if there is one. `--page` writes the counts into a page of the documentation.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Before torch: children of a process with threads of its own would wait for them for ever.
os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

MARK = "<!-- counts: make fuzz -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", type=Path, help="write the counts there")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases; default: 1")
    parser.add_argument("--only", nargs="+", default=[], help="parts by their names")
    parser.add_argument("--seed", type=int, default=10_000, help="of the first case of each part")
    options = parser.parse_args()

    from parts import PARTS

    lines, all_found = [], []
    for part in PARTS:
        if options.only and part.name not in options.only:
            continue
        began = time.monotonic()
        cases = max(1, round(part.long * options.share))
        found = part.try_out(range(options.seed, options.seed + cases))
        all_found += found
        seconds = time.monotonic() - began
        print(f"{part.name}: {cases} cases, {len(found)} findings, {seconds:.0f} s", flush=True)
        print("".join(f"  {finding}\n" for finding in found[:20]), end="", flush=True)
        lines.append(f"| {part.name} | {cases} | {len(found)} |")
    if options.page is not None:
        write(options.page, options, lines)
    return 1 if all_found else 0


def write(page: Path, options: argparse.Namespace, lines: list[str]) -> None:
    """Put the table, and what was run, between the two marks of the page."""
    before, _, after = page.read_text(encoding="utf-8").split(MARK)
    chosen = f"seeds from {options.seed:,} on, {options.share:.0%} of the long campaign"
    table = "\n".join(["| what was tried | cases | findings |", "|---|--:|--:|", *lines])
    page.write_text(f"{before}{MARK}\n{chosen}:\n\n{table}\n\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
