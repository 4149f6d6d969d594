"""The paper's tables: as data, and measured again with networks at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastinterp import InputError, models
from fastinterp.evaluation import paper_selection, reproduce, sweep
from fastinterp.evaluation.reproduce.networks import find_network
from fastinterp.training import METHODS

COLUMNS = ((0.0, 2), (0.1, 2))
ROWS = {"normal": (0.5, 0.1), "int": (0.4, 0.2), "adv": (0.3, 0.3)}
TABLE = reproduce.Table(
    "tableX",
    "a table that no paper has",
    "accuracy",
    "",
    "",
    (reproduce.Block("digits", "small", COLUMNS, ROWS),),
)


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for seed, method in enumerate(("normal", "int")):
        folder = tmp_path / f"digits-small-{method}"
        models.save(models.small(seed=seed), folder / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", reproduce.list_tables())
def test_tables_are_whole(name: str) -> None:
    table = reproduce.load_table(name)
    assert table.kind in ("accuracy", "aai")
    for block in table.blocks:
        assert set(block.rows) <= set(METHODS)
        for values in block.rows.values():
            assert len(values) == len(block.columns)
            assert all(-1 <= value <= 1 for value in values)
            if table.kind == "accuracy" and len({eps for eps, _ in block.columns}) > 1:
                assert list(values) == sorted(values, reverse=True)


def test_unknown_table_is_met_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'table3'"):
        reproduce.load_table("tabel3")


def test_cells_are_those_of_sweep(networks: Path) -> None:
    from fastinterp import data

    rows = reproduce.reproduce(TABLE, networks, None, n=7)
    assert [(r["method"], r["eps"], r["steps"]) for r in rows] == [
        (method, *column) for method in ROWS for column in COLUMNS
    ]
    test = data.load("digits")
    chosen, _ = paper_selection(len(test), 7)
    model = models.load(networks / "digits-small-int" / "model.safetensors")
    expected = sweep(
        model, test.float(chosen), test.labels[chosen], eps=(0.0, 0.1), steps=(2,), progress=False
    )
    ours = [row for row in rows if row["method"] == "int"]
    assert [row["ours"] for row in ours] == [row["accuracy"] for row in expected]
    for row in ours:
        assert row["difference"] == pytest.approx(row["ours"] - row["paper"])
        assert row["within"] == (abs(row["difference"]) <= 1 / 7 + 1e-9)
    assert all(
        row["ours"] is None and row["within"] is None for row in rows if row["method"] == "adv"
    )
    assert "1 networks were not there" in reproduce.summary(rows)
    (title, header, body), *rest = reproduce.paper_and_ours(rows)
    assert not rest
    assert "digits, small" in title
    assert header == ["method", "eps 0", "eps 0.1"]
    assert body[2] == ["adv", "0.300 / -", "0.300 / -"]


def test_a_stopped_run_goes_on(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    reproduce.reproduce(TABLE, networks, None, only=["int"], n=5, out=out)
    first = json.loads(out.read_text())
    assert {row["method"] for row in first["rows"]} == {"int"}
    first["rows"][0]["ours"] = 0.123  # only a cell taken from the file can show this
    out.write_text(json.dumps(first))
    rows = reproduce.reproduce(TABLE, networks, None, n=5, out=out)
    assert next(row["ours"] for row in rows if row["method"] == "int") == 0.123
    kept = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in kept] == ["normal"] * 2 + ["int"] * 2 + ["adv"] * 2
    # A later run of one row alone loses none of the others.
    reproduce.reproduce(TABLE, networks, None, only=["normal"], n=5, out=out)
    assert json.loads(out.read_text())["rows"] == kept


def test_a_file_of_something_else_is_not_overwritten(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    for content in ('{"mine": 1}', "no json", '{"table": "table3", "n": 5, "rows": []}'):
        out.write_text(content)
        with pytest.raises(InputError, match="something else than tableX"):
            reproduce.reproduce(TABLE, networks, None, n=5, out=out)
        assert out.read_text() == content


def test_only_keeps_rows_that_fit_each_kind_of_word() -> None:
    from fastinterp.evaluation.reproduce.measure import _wanted

    table = reproduce.load_table("table3")

    def kept(*only: str) -> set[tuple[str, str]]:
        return {(block.dataset, method) for block, method in _wanted(table, only)}

    assert len(kept()) == 14
    assert kept("cifar10", "int") == {("cifar10", "int")}
    assert kept("int", "adv") == {(d, m) for d in ("mnist", "cifar10") for m in ("int", "adv")}
    assert kept("wresnet", "ig-norm") == set()
    assert kept("mnist", "nonsense") == set()


def test_bad_input(networks: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        reproduce.reproduce(TABLE, networks / "nowhere", None)
    with pytest.raises(InputError, match="nothing to do with cifar100"):
        reproduce.reproduce(TABLE, networks, None, only=["cifar100"])


def test_released_networks_are_found(shared: Path) -> None:
    found = find_network(shared / "networks", "mnist", "small", "ig-norm-sum")
    assert found is not None
    assert found.name == "mnist_smallgap_igsum_100.pkl"
    assert find_network(shared / "networks", "mnist", "small", "nonsense") is None


def test_int_at_ten_steps_agrees_with_the_paper(shared: Path) -> None:
    """Two cells on all 200 images (Tables 3 and 4); whole tables are measured by hand."""
    short = reproduce.Block("mnist", "small", ((0.0, 10), (0.3, 10)), {"int": (0.935, 0.910)})
    small = reproduce.Table("short", "", "accuracy", "", "", (short,))
    rows = reproduce.reproduce(small, shared / "networks", shared / "data")
    assert [row["within"] for row in rows] == [True, True]


def test_taus_are_those_of_aai_sweep(networks: Path) -> None:
    from fastinterp import data
    from fastinterp.evaluation.aai_scores import aai_sweep, paper_noise
    from fastinterp.interpreters import CAM

    block = reproduce.Block("digits", "small", ((0.1, 200),), {"int": (0.5,)})
    table = reproduce.Table("tableY", "", "aai", "cam", "", (block,))
    (row,) = reproduce.reproduce(table, networks, None, n=3)
    test = data.load("digits")
    chosen, _ = paper_selection(len(test), 3)
    model = models.load(networks / "digits-small-int" / "model.safetensors")
    noise = paper_noise(len(test), 3, test.images.shape[1:])
    images, labels = test.float(chosen), test.labels[chosen]
    (expected,) = aai_sweep(
        model, CAM(model), images, labels, eps=[0.1], noise=noise, progress=False
    )
    assert row["n_unchanged"] == expected["n_unchanged"]
    if expected["n_unchanged"]:
        assert row["ours"] == expected["kendall_tau"]
    else:
        assert row["ours"] is None
    assert row["within"] is None, "fewer than 20 images are not held against the paper"
