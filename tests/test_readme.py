"""README and docs show what is: examples run, and figures come from files that commands wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_names_that_it_lists_are_all() -> None:
    import fastinterp
    from fastinterp import attacks, interpreters
    from fastinterp.evaluation.by_attack import MEASURES

    listed = {}
    for row in README.split("## What there is")[1].split("\n\n")[1].splitlines()[2:]:
        _, part, names, _ = row.split("|")
        listed[part.strip()] = set(re.findall(r"`([\w-]+)`", names))
    assert listed["trainers"] == {n for n in fastinterp.__all__ if n.endswith("Trainer")}
    classes = {n: c for n in attacks.__all__ if isinstance(c := getattr(attacks, n), type)}
    called_with_images = {
        name
        for name, each in classes.items()
        if any("__call__" in vars(base) for base in each.__mro__)
    }
    named = listed["attacks on predictions"] | listed["attacks on explanations"]
    assert named == called_with_images
    made = {name for name in interpreters.__all__ if isinstance(getattr(interpreters, name), type)}
    assert listed["interpreters"] == made - {"Interpreter", "FeatureInterpreter", "MarginBound"}
    assert listed["`eval` `--attack`"] == set(MEASURES)


def test_tables_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from readme_tables import PAGES, fill

    assert {"README.md", "measured.md"} <= {page.name for page in PAGES}
    for page in PAGES:
        assert page.read_text(encoding="utf-8") == fill(page), page.name


def test_no_times_of_a_gpu_are_claimed_before_there_are_any() -> None:
    published = any((ROOT / "benchmarks" / "results").glob("gpu-*.json"))
    building = (ROOT / "docs" / "building.md").read_text(encoding="utf-8")
    for page, sentence in (
        (README, "No times on a GPU are published yet"),
        (building, "No such file is published yet"),
    ):
        assert (sentence in " ".join(page.split())) is not published


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "csrc" / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        for link in (link for link in links if not link.startswith("https://")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_files_that_the_architecture_names_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = page.split("## From an attack to the kernel")[1].split("## ")
    for walk in walks:
        assert 1 <= len(re.findall(r"^\d+\. ", walk, flags=re.MULTILINE)) <= 8
    files = re.findall(r"`((?:fastinterp|csrc|tests)/[\w/]+\.\w+)`", page)
    assert len(files) > 16
    for file in files:
        assert (ROOT / file).is_file(), file


def test_every_example_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"examples/(\w+)\.py\)", page))
    assert shown == {path.stem for path in (ROOT / "examples").glob("*.py")}


def test_figures_in_the_text_on_networks_trained_here_are_those_measured() -> None:
    results = ROOT / "docs" / "results"
    page = " ".join((ROOT / "docs" / "measured.md").read_text(encoding="utf-8").split())

    def kept(name: str, *radii: float) -> list[str]:
        rows = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        found = {row["eps"]: row["accuracy"] for row in rows}
        return [f"{found[eps]:.3f}" for eps in radii]

    for name, who in (("best-own-int", "this network"), ("best-int", "the authors'")):
        *first, last = kept(name, 0.2, 0.3, 0.31, 0.35)
        assert f"{who} keeps {', '.join(first)} and {last}" in page
    assert f"Int keeps {kept('best-int-10000', 0.3)[0]} at eps 0.3" in page
    rows = json.loads((results / "table3-own.json").read_text(encoding="utf-8"))["rows"]
    ours = [r for r in rows if r["method"] == "int" and r["ours"] is not None]
    assert len(ours) == 7
    assert all((r["ours"] >= r["paper"]) is (r["eps"] <= 0.3) for r in ours)
