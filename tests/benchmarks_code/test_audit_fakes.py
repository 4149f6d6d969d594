"""The page on planted fakes says what is not as it should be."""

from __future__ import annotations

from benchmarks.audit_fakes import page


def row(network: str, best: float, plain: float, marks: str = "", audit: tuple = ()) -> dict:
    found = {"network": network, "n": 50, "truth": {"transfer": 0.5, "Square": 0.1}}
    return found | {"plain": plain, "best": {"accuracy": best, "marks": marks}, "audit": audit}


def test_the_page_names_what_is_too_high_and_who_is_blamed_wrongly() -> None:
    rows = [
        row("sine (Normal)", 0.1, 0.9, audit=("direction",)),
        row("noise (Adv)", 0.3, 0.1, marks="two passes differ"),
        row("detector (Adv)", 0.3, 0.9),
        row("MNIST Small Int", 0.1, 0.1, audit=("unbounded",)),
    ]
    lines = page(rows).splitlines()
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == ["sine (Normal)", "50", "0.100", "Square", "0.900", "0.100", "-", "direction"]
    assert lines[-3:] == [
        "- Fakes whose unmarked `best` is more than 0.05 above the truth: detector (Adv).",
        "- Fakes whose plain PGD is more than 0.05 above the truth, and that pass: detector (Adv).",
        "- Honest networks that are marked, or that fail a check: MNIST Small Int.",
    ]
