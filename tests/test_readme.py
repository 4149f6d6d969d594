"""The README shows what is: its example runs, its figures come from a file that a command wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert "epochs=30" in code
    assert "steps=40" in code
    monkeypatch.chdir(tmp_path)
    short = code.replace("epochs=30", "epochs=1, progress=False").replace("steps=40", "steps=1")
    exec(compile(short, "README.md", "exec"), {})
    assert 0 <= float(re.findall(r"tensor\((.*?)\)", capsys.readouterr().out)[0]) <= 1


def test_the_table_is_the_one_that_was_measured() -> None:
    ((name, shown),) = re.findall(
        r"<!-- table3: (\S+) -->\n(.*?)<!-- end -->", README, flags=re.DOTALL
    )
    page = (ROOT / name).read_text(encoding="utf-8")
    measured = [line for line in page.splitlines() if line.startswith("|")]
    assert [line for line in shown.splitlines() if line.startswith("|")] == measured


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "csrc" / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        for link in links:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
