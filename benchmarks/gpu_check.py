"""Build, test and time everything on the GPU machine at hand.

    python benchmarks/gpu_check.py [--part 1|2|3] [--archive FOLDER] [--steps STEP ...]

Run it in a checkout, with any Python that has torch for CUDA. Each part is a command of a few
minutes, for a machine that you have for a short time:

- part 1 takes the kernels from `gpu-pack`, or builds them, runs the tests that are marked `cuda`
  and times training;
- part 2 times `discrepancy`, `cam` and `pgd_step` against plain torch, copies and torch.compile;
- part 3 times `kendall` and attacks, runs compute-sanitizer on small shapes, measures the released
  networks, and trains `mnist-small-int` and measures it.

Without `--part` all steps run. `gpu-pack`, made by benchmarks/gpu_pack.py, holds what cannot be
built or downloaded on the machine. Each step runs in processes of its own with a time limit, and
the other steps run even if it fails; only a build that fails ends the command. The results file,
benchmarks/results/gpu-<name>.json, is written after each step and each group of times, and so is
the archive: one .tar.gz of results, logs and trained networks. The exit status is 0 if every step
passed. `gpu_check.py --collect ARCHIVE ...` puts the results of several archives into one file.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu_pack, gpu_steps, record, utils  # noqa: E402
from benchmarks.gpu_results import Found, Place, Results, collect, write_archive  # noqa: E402
from benchmarks.gpu_steps import LIMITS, PARTS, STEPS  # noqa: E402

ROW = 40  # seconds of the whole command that remain after training, for measuring the network


def main() -> int:
    options = _options()
    if options.collect:
        return collect(options.collect, options.out)
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: torch finds no CUDA GPU. This script needs one.")
        return 2
    utils.use_tf32(False)
    inside = options.inside is not None
    place = Place(
        name="gpu-" + torch.cuda.get_device_name().replace(" ", "-").lower(),
        out=options.out.resolve(),
        pack=options.pack.resolve(),
        library=record.digest(record.LIBRARY),
        rounds=options.rounds,
        load=options.inside if inside else os.getloadavg()[0],  # before anything of ours runs
    )
    if inside:
        found = Results(place).time(options.steps[0], gpu_steps.groups_of(options.steps[0]))
        print(found["tail"], flush=True)
        return 0 if found["passed"] else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("gpu_check: stopped by a signal."))
    place.logs.mkdir(parents=True, exist_ok=True)
    os.environ.update(place.variables())
    sys.path.append(str(place.pack / gpu_pack.PACKAGES))
    archive = None
    if options.archive is not None:
        options.archive.mkdir(parents=True, exist_ok=True)
        archive = options.archive.resolve() / f"gpu-check-{options.part or 'steps'}.tar.gz"
    chosen = PARTS[options.part] if options.part else options.steps or STEPS
    # Without a build, the kernels that are here must run.
    steps = [step for step in STEPS if step in {"proof", *chosen}]
    if "build" in steps:
        steps.remove("proof")
    return do_all(steps, place, 60 * options.minutes, archive)


def do_all(steps: list[str], place: Place, seconds: float, archive: Path | None) -> int:
    end = time.monotonic() + seconds
    done: dict[str, Found] = {}
    for step in steps:
        print(f"\n== {step}", flush=True)
        reserved = ROW if step == "recipe" and "recipe-row" in steps else 0
        done[step] = do(step, place, min(LIMITS[step], end - time.monotonic() - reserved))
        # Read the results again, because a timed step writes the file too.
        Results(place).check(step, done[step])
        if archive is not None:
            write_archive(archive, place.results, place.logs, place.runs)
        if step in ("proof", "build") and not done[step]["passed"]:
            print(f"gpu_check: no CUDA kernels serve here, so nothing else was run. The logs in "
                  f"{place.logs} say why.")  # fmt: skip
            return 1
    print(f"\nwrote {place.results}{f' and {archive}' if archive else ''}")
    for step, found in done.items():
        verdict = "passed" if found["passed"] else "FAILED"
        print(f"{step:22}{verdict} {found['seconds']:6.0f} s  {found.get('counts', '')}")
    return 0 if all(found["passed"] for found in done.values()) else 1


def do(step: str, place: Place, seconds: float) -> Found:
    """One step, in processes of its own, so that a GPU error of another step cannot affect it."""
    if seconds < 10:
        return {"passed": False, "seconds": 0.0, "tail": "no time was left for this step"}
    try:
        return gpu_steps.run_step(step, place, seconds)
    except Exception as error:  # of this script; the other steps still run
        return {"passed": False, "seconds": 0.0, "tail": f"{type(error).__name__}: {error}"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", type=int, choices=sorted(PARTS), help="a part of the steps")
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, metavar="STEP", help=f"some of {', '.join(STEPS)}"
    )
    parser.add_argument("--archive", type=Path, metavar="FOLDER", help="folder for the archive")
    parser.add_argument(
        "--pack", type=Path, default=gpu_pack.PACK, metavar="FOLDER", help="default: gpu-pack"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER",
        help="for the results file; default: benchmarks/results",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each entry")
    parser.add_argument(
        "--minutes", type=float, help="for the whole command; default: 9 for a part, else no limit"
    )
    parser.add_argument(
        "--collect", nargs="+", type=Path, metavar="ARCHIVE", help="join the results of archives"
    )
    # For a timed step in its own process; the number is the load of the machine before.
    parser.add_argument("--inside", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.minutes is None:
        options.minutes = 9.0 if options.part else float("inf")
    return options


if __name__ == "__main__":
    sys.exit(main())
