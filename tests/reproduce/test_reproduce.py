"""The paper's tables: as data, and measured again with networks at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastinterp import InputError, __version__, data, models, reproduce
from fastinterp.evaluation import paper_selection, sweep
from fastinterp.evaluation.by_attack import Request
from fastinterp.evaluation.corruptions import PUBLISHED_EPS
from fastinterp.evaluation.isa_scores import TABLE1
from fastinterp.reproduce import tables
from fastinterp.reproduce.networks import Network
from fastinterp.reproduce.tables import KINDS, is_squared
from fastinterp.training import METHODS

COLUMNS = ({"eps": 0.0, "steps": 2}, {"eps": 0.1, "steps": 2})
ROWS = {"normal": (0.5, 0.1), "int": (0.4, 0.2), "adv": (0.3, 0.3)}
TABLE = reproduce.PaperTable(
    "tableX",
    "a table that no paper has",
    "accuracy",
    "",
    "",
    (reproduce.Block("digits", "small", COLUMNS, ROWS, n=5),),
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
    assert table.kind in KINDS
    assert table.minutes > 0
    assert not table.interpreter or table.interpreter in TABLE1
    for block in table.blocks:
        assert set(block.rows) <= set(TABLE1 if table.kind == "isa" else METHODS)
        assert set(block.nsl) == (set(block.rows) if table.kind == "isa" else set())
        for values in (*block.rows.values(), *block.nsl.values()):
            assert len(values) == len(block.columns)
            largest = 62 if block.dataset == "restricted_imagenet" else 7
            assert not any(abs(value) > largest for value in values)
            if table.kind == "accuracy" and len({column["eps"] for column in block.columns}) > 1:
                assert list(values) == sorted(values, reverse=True)
        if table.kind == "corruption":
            assert [column["eps"] for column in block.columns] == [
                PUBLISHED_EPS[column["attack"]] for column in block.columns
            ]


def test_unknown_names_are_met_with_a_suggestion() -> None:
    for load in (reproduce.load_table, reproduce.load_entry):
        with pytest.raises(InputError, match="did you mean 'table3'"):
            load("tabel3")
    with pytest.raises(InputError, match="did you mean 'fig3'"):
        reproduce.load_entry("figg3")


def test_cells_are_those_of_sweep(networks: Path) -> None:
    rows = reproduce.reproduce_table(TABLE, networks, None, n=7)
    assert [(r["method"], r["eps"], r["steps"]) for r in rows] == [
        (method, *column.values()) for method in ROWS for column in COLUMNS
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
        assert row["versions"]["fastinterp"] == __version__ and row["versions"]["device"] == "cpu"
    assert all(
        row["ours"] is None and row["within"] is None for row in rows if row["method"] == "adv"
    )
    assert "1 networks were missing" in reproduce.summary(rows)
    (title, header, body), *rest = reproduce.paper_and_ours(rows)
    assert not rest
    assert "digits, small" in title
    assert header == ["method", "eps 0", "eps 0.1"]
    assert body[2] == ["adv", "0.300 / -", "0.300 / -"]


def test_a_stopped_run_goes_on(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    reproduce.reproduce_table(TABLE, networks, None, only=["int"], n=5, out=out)
    first = json.loads(out.read_text())
    assert {row["method"] for row in first["rows"]} == {"int"}
    first["rows"][0]["ours"] = 0.123  # only a cell taken from the file can show this
    out.write_text(json.dumps(first))
    rows = reproduce.reproduce_table(TABLE, networks, None, n=5, out=out)
    assert next(row["ours"] for row in rows if row["method"] == "int") == 0.123
    kept = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in kept] == ["normal"] * 2 + ["int"] * 2 + ["adv"] * 2
    # A later run of one row alone loses none of the others.
    reproduce.reproduce_table(TABLE, networks, None, only=["normal"], n=5, out=out)
    assert json.loads(out.read_text())["rows"] == kept


def test_fewer_images_are_not_held_against_the_paper(networks: Path) -> None:
    """Four images may be right one and all where 200 are not: one image is no tolerance then."""
    rows = reproduce.reproduce_table(TABLE, networks, None, n=4)
    measured = [row for row in rows if row["network"]]
    assert {row["within"] for row in rows} == {row["tolerance"] for row in rows} == {None}
    assert {row["not_judged"] for row in measured} == {"images"}
    text = reproduce.summary(rows)
    assert text.startswith("No cell was held against the paper's; 1 networks were missing.")
    assert "4 cells are not judged: 4 images are fewer than the paper's." in text
    enough = reproduce.reproduce_table(TABLE, networks, None, n=5)
    assert "cells agree within the tolerance, 0.2 (one image of 5)" in reproduce.summary(enough)


def test_rows_of_other_code_are_kept_with_a_notice(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    rows = reproduce.reproduce_table(TABLE, networks, None, n=5, out=out)
    assert reproduce.measured_otherwise(out, "cpu") == ""
    written = json.loads(out.read_text())
    for row, found in zip(written["rows"], ({"fastinterp": "0.0.1"}, None), strict=False):
        row["versions"] = found and row["versions"] | found
    out.write_text(json.dumps(written))
    again = reproduce.reproduce_table(TABLE, networks, None, n=5, out=out)
    notice = reproduce.measured_otherwise(out, "cpu")
    assert "fastinterp 0.0.1" in notice and "did not record itself" in notice
    assert [row["ours"] for row in again] == [row["ours"] for row in rows]


def test_a_file_of_something_else_is_not_overwritten(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    good = reproduce.reproduce_table(TABLE, networks, None, n=5, out=out)
    changes = ({"ours": "x"}, {"versions": 3}, {"paper": None}, {"within": "yes"}, {"model": 1})
    edited = [{"table": TABLE.name, "rows": [good[0] | change]} for change in changes]
    contents = ['{"mine": 1}', "no json", '{"table": "table3", "n": 5, "rows": []}', "[" * 100_000]
    for content in (*contents, *map(json.dumps, edited)):
        out.write_text(content)
        with pytest.raises(InputError, match="something else than tableX"):
            reproduce.reproduce_table(TABLE, networks, None, n=5, out=out)
        assert out.read_text() == content


def test_only_keeps_rows_that_fit_each_kind_of_word() -> None:
    table = reproduce.load_table("table3")

    def kept(*only: str) -> set[tuple[str, str]]:
        return {(network.dataset, network.method) for network in table.needed(only)}

    assert len(kept()) == 14
    assert kept("cifar10", "int") == {("cifar10", "int")}
    assert kept("int", "adv") == {(d, m) for d in ("mnist", "cifar10") for m in ("int", "adv")}
    for only in (("wresnet", "ig-norm"), ("mnist", "nonsense")):
        with pytest.raises(InputError, match="nothing to do with"):
            kept(*only)
    (normal,) = reproduce.load_table("table1").needed(["cam", "gradcam++", "mnist"])
    assert normal == Network("mnist", "small", "normal")


def test_a_folder_without_any_network_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"digits-small-normal/model\.safetensors"):
        reproduce.reproduce_table(TABLE, tmp_path, None)


def test_bad_input(networks: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        reproduce.reproduce_table(TABLE, networks / "nowhere", None)
    with pytest.raises(InputError, match="nothing to do with cifar100"):
        reproduce.reproduce_table(TABLE, networks, None, only=["cifar100"])


def test_int_at_ten_steps_agrees_with_the_paper(shared: Path) -> None:
    """Two cells on all 200 images (Tables 3 and 4); whole tables are measured by hand."""
    columns = ({"eps": 0.0, "steps": 10}, {"eps": 0.3, "steps": 10})
    short = reproduce.Block("mnist", "small", columns, {"int": (0.935, 0.910)})
    small = reproduce.PaperTable("short", "", "accuracy", "", "", (short,))
    rows = reproduce.reproduce_table(small, shared / "networks", shared / "data")
    assert [row["within"] for row in rows] == [True, True]


def test_taus_are_those_of_aai_sweep(networks: Path) -> None:
    from fastinterp.evaluation.aai_scores import aai_sweep, paper_noise
    from fastinterp.interpreters import CAM

    block = reproduce.Block("digits", "small", ({"eps": 0.1, "steps": 200},), {"int": (0.5,)})
    table = reproduce.PaperTable("tableY", "", "aai", "cam", "", (block,))
    (row,) = reproduce.reproduce_table(table, networks, None, n=3)
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


def test_corruptions_are_those_of_corruption_sweep(networks: Path) -> None:
    from fastinterp.evaluation.corruptions import corruption_sweep

    columns = (
        {"attack": "snow", "eps": 2.0, "steps": 2},
        {"attack": "fog", "eps": 9.0, "steps": 2},
    )
    block = reproduce.Block("digits", "small", columns, {"int": (0.5, 0.5)}, n=20)
    table = reproduce.PaperTable("tableY", "", "corruption", "", "", (block,))
    rows = reproduce.reproduce_table(table, networks, None, n=20)
    test = data.load("digits")
    chosen, offsets = paper_selection(len(test), 20)
    model = models.load(networks / "digits-small-int" / "model.safetensors")
    labels = test.labels[chosen]
    for row, column in zip(rows, columns, strict=True):
        (expected,) = corruption_sweep(
            model, test.float(chosen), labels, (labels + offsets) % 10,
            attack=column["attack"], eps=[column["eps"]], steps=[2], progress=False,
        )  # fmt: skip
        assert (row["ours"], row["attack"]) == (expected["accuracy"], column["attack"])
        assert row["within"] == (abs(row["ours"] - 0.5) <= 0.06 + 1e-9)
    ((_, header, _),) = reproduce.paper_and_ours(rows)
    assert header == ["method", "snow, eps 2", "fog, eps 9"]


def test_scores_are_those_of_isa_row(networks: Path, tmp_path: Path) -> None:
    from fastinterp.evaluation.isa_scores import isa_row

    columns = ({"norm": "l1", "classes": "1-class"}, {"norm": "l1", "classes": "2-class"})
    figures = {"cam": (1.0, 2.0), "repr": (float("nan"), 3.0)}
    block = reproduce.Block("digits", "small", columns, figures, figures, method="normal")
    table = reproduce.PaperTable("tableY", "", "isa", "", "", (block,))
    out = tmp_path / "table.json"
    rows = reproduce.reproduce_table(table, networks, None, n=8, out=out)
    assert [(row["interpreter"], row["classes"]) for row in rows] == [
        ("cam", "1-class"),
        ("cam", "2-class"),
        ("repr", "2-class"),
    ]
    assert {row["method"] for row in rows} == {"normal"}
    model = models.load(networks / "digits-small-normal" / "model.safetensors")
    two = isa_row(model, data.load("digits"), "cam", "l1", "2-class", n=8, progress=False)
    assert rows[1]["n_counted"] == two["n"]
    if two["n"]:
        assert (rows[1]["nds"], rows[1]["nsl"]) == (two["nds"], two["nsl"])
    assert json.loads(out.read_text(), parse_constant=pytest.fail)["rows"] == rows
    assert reproduce.reproduce_table(table, networks, None, only=["repr"], n=8, out=out) == rows[2:]
    ((_, header, body),) = reproduce.paper_and_ours(rows)
    assert header == ["interpreter", "1-class", "2-class"]
    assert body[1][1] == "-", "the paper has no such cell"


def test_cells_that_the_paper_squared_are_compared_as_squares(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(attack: str, request: Request) -> list[dict[str, object]]:
        scores = {"nds": 0.6, "nsl": 0.02, "nds_squared": 0.31, "nsl_squared": 0.04}
        return [{**scores, "n": 20 if request.n == 25 else 19}]

    monkeypatch.setattr(tables, "measure", measure)
    columns = ({"norm": "l2", "classes": "1-class"}, {"norm": "l2", "classes": "2-class"})
    figures = {"cam": (0.3, 0.6), "repr": (float("nan"), 0.4)}
    block = reproduce.Block(
        "digits", "small", columns, figures, figures, method="normal", squared=("cam",), n=25
    )
    table = reproduce.PaperTable("tableY", "", "isa", "", "", (block,))
    rows = reproduce.reproduce_table(table, networks, None)
    assert [row["n"] for row in rows] == [25] * 3, "the block's own number of images"
    assert [row["squared"] for row in rows] == [True, False, False]
    assert [row["ours"] for row in rows] == [0.31, 0.6, 0.6]
    assert [row["within"] for row in rows] == [True, True, None], "CAM alone is judged"
    assert {(row["nds"], row["nsl"]) for row in rows} == {(0.6, 0.02)}
    ((_, _, body),) = reproduce.paper_and_ours(rows)
    assert body[0][1:] == ["0.300/0.300 / 0.310/0.040", "0.600/0.600 / 0.600/0.020"]
    few = reproduce.reproduce_table(table, networks, None, n=24)
    assert {row["within"] for row in few} == {None}, "means of so few images are not judged"
    assert reproduce.summary(rows).startswith(
        "2 of 2 cells agree within the tolerance, 15% of the paper's NDS."
    )
    assert "digits small repr l2 2-class, 0.400 and here 0.600." in reproduce.summary(rows)


def test_table1_squares_two_columns_of_two_data_sets() -> None:
    table = reproduce.load_table("table1")
    squared = {
        (block.dataset, name)
        for block in table.blocks
        for name in block.rows
        for column in block.columns
        if is_squared(block, name, column)
    }
    assert squared == {(d, i) for d in ("mnist", "cifar10") for i in ("cam", "gradcam++")}
    assert "inferred" in table.note


def cell(method: str, paper: float, ours: float | None, **more: object) -> dict[str, object]:
    within = None if ours is None else abs(paper - ours) <= 0.06
    return {
        "dataset": "cifar10", "model": "small", "method": method, "network": method, "recipe": None,
        "attack": "snow", "eps": 2.0, "steps": 200, "paper": paper, "ours": ours,
        "tolerance": 0.06, "within": within,
    } | more  # fmt: skip


def test_order_counts_pairs_that_the_paper_tells_apart() -> None:
    rows = [cell("normal", 0.0, 0.01), cell("int", 0.1, 0.02), cell("adv", 0.12, 0.0)]
    # normal < int is kept, normal < adv is not, int and adv are too close to count.
    assert reproduce.order_kept(rows) == (1, 2)
    assert "kept in 1 of 2 pairs" in reproduce.summary(rows)
    tie = [cell("normal", 0.0, 0.1), cell("int", 0.1, 0.1)]
    assert reproduce.order_kept(tie) == (0, 1)
    missing = [cell("normal", 0.0, None), cell("int", 0.1, 0.1)]
    assert reproduce.order_kept(missing) == (0, 0)
    assert "order" not in reproduce.summary(missing)
    apart = [cell("normal", 0.0, 0.1), cell("int", 0.2, 0.3, attack="gabor")]
    assert reproduce.order_kept(apart) == (0, 0), "cells of one column alone are compared"


def test_networks_of_another_recipe_are_not_judged(tmp_path: Path) -> None:
    figures = {"int": (0.5, 0.5), "adv": (0.5, 0.5)}
    block = reproduce.Block("digits", "small", COLUMNS, figures, n=5)
    table = reproduce.PaperTable("tableX", "", "accuracy", "", "", (block,))
    for method, recipe in (("int", "digits-small-int"), ("adv", "digits-quick-adv")):
        path = tmp_path / f"digits-small-{method}" / "model.safetensors"
        models.save(models.small(seed=0), path, info={"recipe": {"name": recipe}})
    rows = reproduce.reproduce_table(table, tmp_path, None, n=5)
    assert [row["tolerance"] for row in rows] == [0.2, 0.2, None, None]
    assert [row["within"] is None for row in rows] == [False, False, True, True]
    assert rows[0]["network"] == "digits-small-int/model.safetensors"
    assert "2 cells are not judged" in reproduce.summary(rows)
    assert "digits-quick-adv" in reproduce.summary(rows)


def test_two_class_is_judged_by_both_scores() -> None:
    def rows(*scores: tuple[float, float]) -> list[dict[str, object]]:
        shared = {"dataset": "mnist", "model": "small", "method": "normal", "interpreter": "cam",
                  "norm": "l1", "network": "n.pkl", "within": None}  # fmt: skip
        sets = ("1-class", "2-class", "all-class")
        return [
            {**shared, "classes": classes, "nds": nds, "nsl": nsl}
            for classes, (nds, nsl) in zip(sets, scores, strict=False)
        ]

    key = ("mnist", "small", "cam", "l1")
    best = rows((2.0, 0.2), (3.0, 0.1), (1.0, 0.3))
    assert reproduce.two_class_withstands(best) == {key: True}
    assert "smallest NSL in 1 of 1 comparisons." in reproduce.summary(best)
    for worse in (rows((4.0, 0.2), (3.0, 0.1), (1.0, 0.3)), rows((2, 0.2), (3, 0.1), (1, 0.05))):
        assert reproduce.two_class_withstands(worse) == {key: False}
        assert "0 of 1 comparisons (not in mnist small cam l1)" in reproduce.summary(worse)
    assert reproduce.two_class_withstands(best[:2]) == {}


def test_interpreters_are_rows_of_table1_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from fastinterp.cli import main

    words = ["reproduce", "table3", "--networks", "nowhere", "--interpreters", "cam"]
    assert main(words) == 2
    assert "rows of table1 and table3 has none" in capsys.readouterr().err
    assert main(["reproduce", "table1", "--networks", "nowhere", "--interpreters", "lime"]) == 2
    assert "there is no 'lime'" in capsys.readouterr().err
