"""Compare the models with measurements again and write every table of the accuracy pages.

    make accuracy
    python docs/accuracy gpu-layers gpu-power    # some tables only

A table stands in a page between `<!-- measured: NAME -->` and `<!-- end -->`; a subject is a module with a
`SECTIONS` dictionary of names to functions that return Markdown.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accuracy import gpu, tables

PAGES = (tables.ROOT / "docs" / "accuracy-gpu.md", tables.ROOT / "docs" / "accuracy.md")
SECTIONS = {**gpu.SECTIONS}
BLOCK = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, made: dict[str, str]) -> str:
    """Return a page with the tables that were made in their places."""

    def replaced(found: re.Match[str]) -> str:
        name = found[2]
        return f"{found[1]}\n{made[name]}\n\n{found[3]}" if name in made else found[0]

    return BLOCK.sub(replaced, text)


def main() -> None:
    """Make the tables that are named, or all, and write them into the pages."""
    wanted = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        sys.exit(f"no table {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    made = {}
    for name in wanted:
        print(f"{name} ...", flush=True)
        made[name] = SECTIONS[name]()
        print(made[name], flush=True)
    if not sys.argv[1:]:
        gpu.draw(tables.ROOT / "docs" / "pictures" / "gpu-accuracy.svg")
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
