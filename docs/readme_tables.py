"""Puts measured tables into README.md, between the marks that name their files.

python docs/readme_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tables_of(page: Path) -> str:
    """The headings and tables of a page that `fastinterp reproduce` wrote."""
    lines = page.read_text(encoding="utf-8").splitlines()[1:]
    return "\n".join(lines).strip()


def main() -> None:
    readme = ROOT / "README.md"
    text = re.sub(
        r"(<!-- table3: (\S+) -->\n).*?(<!-- end -->)",
        lambda m: f"{m[1]}\n{tables_of(ROOT / m[2])}\n\n{m[3]}",
        readme.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
