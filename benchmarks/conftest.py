"""Options of the benchmarks, and the fixture that times an entry of a group."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.group import Group
from benchmarks.recorder import CLOCK, Recorder
from benchmarks.subject import DATA_DIR, NETWORKS

RESULTS = Path(__file__).resolve().parent / "results"
LOAD = machine.load()  # before anything of ours runs
RECORDER = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("fastinterp benchmarks")
    options.addoption("--rounds", type=int, default=11, help="measurements of each entry")
    options.addoption("--results", type=Path, default=RESULTS, help="folder for the JSON files")
    options.addoption("--networks", default="", help="folder with the released networks")
    options.addoption("--data-dir", default="", help="folder with MNIST")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDER] = Recorder(config.getoption("--rounds"))
    for variable, option in ((NETWORKS, "--networks"), (DATA_DIR, "--data-dir")):
        if config.getoption(option):
            os.environ[variable] = str(Path(config.getoption(option)).resolve())


def pytest_report_header(config: pytest.Config) -> list[str]:
    warning = machine.load_warning(LOAD)
    return [warning] if warning else []


def pytest_itemcollected(item: pytest.Item) -> None:
    module = item.getparent(pytest.Module)
    if module is not None and hasattr(module.obj, "GROUPS"):
        item.config.stash[RECORDER].plan(_file(item), module.obj.GROUPS)
        item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture
def timed(benchmark, request: pytest.FixtureRequest) -> Callable[[Group, str], None]:  # type: ignore[no-untyped-def]
    """Time a group, and show one of its entries to pytest-benchmark."""

    def run(group: Group, entry: str) -> None:
        recorder = request.config.stash[RECORDER]
        measured = recorder.measure(_file(request.node), group, "cpu")
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
    about = machine.describe(LOAD, recorder.rounds)
    for line in recorder.write(config.getoption("--results"), about):
        terminalreporter.write_line(line)
    warning = machine.load_warning(LOAD)
    if warning:
        terminalreporter.write_line(warning, yellow=True)


def _file(item: pytest.Item) -> str:
    """bench_ops.py -> cpu-ops."""
    return "cpu-" + item.path.stem.removeprefix("bench_")
