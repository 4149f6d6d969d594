"""Options of the benchmarks; every script's groups become pytest's parameters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.bench_attacks import DATA_DIR, NETWORKS
from benchmarks.utils import Group

RESULTS = Path(__file__).resolve().parent / "results"
LOAD = os.getloadavg()[0]  # before anything of ours runs
RECORDER = pytest.StashKey[record.Recorder]()


class ReplayClock:
    """A clock that moves only when it is told to.

    pytest-benchmark times one entry after another, but ours are timed in turn. With this clock
    pytest-benchmark reads our times as if it had measured them, for its tables and comparisons.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = ReplayClock()


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("fastinterp benchmarks")
    options.addoption("--rounds", type=int, default=11, help="measurements of each entry")
    options.addoption("--results", type=Path, default=RESULTS, help="folder for the JSON files")
    options.addoption("--networks", default="", help="folder with the released networks")
    options.addoption("--data-dir", default="", help="folder with MNIST")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDER] = record.Recorder(config.getoption("--rounds"))
    for variable, option in ((NETWORKS, "--networks"), (DATA_DIR, "--data-dir")):
        if config.getoption(option):
            os.environ[variable] = str(Path(config.getoption(option)).resolve())


def pytest_report_header() -> list[str]:
    return [warning] if (warning := record.load_warning(LOAD)) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each entry of each group of a script."""
    groups = metafunc.module.groups("cpu")
    plans = metafunc.config.stash[RECORDER].plans
    plans[_file(metafunc.module.__file__)] = [group.title for group in groups]
    metafunc.parametrize(
        ("group", "entry"),
        [
            pytest.param(group, entry, id=f"{group.title}, {entry}")
            for group in groups
            for entry in group.entries
        ],
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture
def timed(benchmark, request: pytest.FixtureRequest) -> Callable[[Group, str], None]:
    """Time a group, and show one of its entries to pytest-benchmark."""

    def run(group: Group, entry: str) -> None:
        recorder = request.config.stash[RECORDER]
        measured = recorder.measure(_file(request.path), group)
        if entry in measured.skipped:
            pytest.skip(measured.skipped[entry])
        seconds = iter(measured.seconds[entry])
        benchmark.group = group.title
        benchmark.pedantic(
            lambda: CLOCK.advance(next(seconds, 0.0)), rounds=len(measured.seconds[entry])
        )

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    recorder = config.stash[RECORDER]
    if not recorder.records:
        return
    about = record.about(LOAD, recorder.rounds)
    for line in recorder.write(config.getoption("--results"), about):
        terminalreporter.write_line(line)
    if warning := record.load_warning(LOAD):
        terminalreporter.write_line(warning, yellow=True)


def _file(script: str | Path) -> str:
    """bench_cam.py -> cpu-cam."""
    return "cpu-" + Path(script).stem.removeprefix("bench_")
