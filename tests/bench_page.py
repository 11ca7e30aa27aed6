"""What `make bench` found, as values that are kept between its parts, and the page of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from markdown_table import table  # noqa: E402

HEAD = """# Performance of the tool itself

How long the emulator takes to answer, how much memory it has then, and how fast its sweeps are; beside other
simulators on the same work in the same run. `make bench` measures all but the longest parts and writes this
page; `make bench PART=questions` measures one part anew and leaves the others as they are. Parts:
{parts}.

Times depend on the machine, ratios of one run hardly do: aims are ratios to what Python takes to import the
libraries alone, `{bare}`, in the same run. A miss is printed as one.
"""
NEVER = "not measured yet"


@dataclass(frozen=True)
class Table:
    """A table of results, with what there is to say of it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aim:
    """A figure that is aimed at: at most so much or, with `least`, at least so much."""

    what: str
    aim: float
    reached: float
    unit: str = "x"
    least: bool = False

    @property
    def met(self) -> bool:
        """Return whether it was reached."""
        return self.reached >= self.aim if self.least else self.reached <= self.aim

    def row(self) -> tuple[str, str, str, str]:
        """Return its row of the page."""
        bound = "at least" if self.least else "at most"
        reached = f"{self.reached:.3g}" if self.reached < 1000 else f"{self.reached:,.0f}"
        verdict = "yes" if self.met else "**no**"
        return self.what, f"{bound} {self.aim:g} {self.unit}", f"{reached} {self.unit}", verdict


@dataclass(frozen=True)
class Part:
    """What one part of the measurement found, and on which machine."""

    machine: str
    tables: tuple[Table, ...]
    aims: tuple[Aim, ...] = ()


def kept(file: Path) -> Part | None:
    """Return a part that was measured before, None where there is none that can be read."""
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        tables = tuple(
            Table(x["title"], tuple(x["columns"]), tuple(map(tuple, x["rows"])), tuple(x["notes"]))
            for x in values["tables"]
        )
        return Part(values["machine"], tables, tuple(Aim(**x) for x in values["aims"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(part: Part, file: Path) -> None:
    """Write a part for later runs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(part)))


def page(parts: dict[str, Part | None], bare: str) -> str:
    """Return the page of all parts, those that were never measured named as such."""
    aims = [aim for part in parts.values() if part for aim in part.aims]
    met = sum(aim.met for aim in aims)
    blocks = [HEAD.format(parts=", ".join(parts), bare=bare)]
    if aims:
        blocks += [f"## What was aimed at: {met} of {len(aims)} reached", _aims(aims)]
    for name, part in parts.items():
        blocks += _of_part(name, part)
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _aims(aims: Iterable[Aim]) -> str:
    return table(("figure", "aim", "reached", "met"), (aim.row() for aim in aims))


def _of_part(name: str, part: Part | None) -> Iterator[str]:
    yield f"## {name.capitalize()}"
    if part is None:
        yield f"{NEVER.capitalize()}: `make bench PART={name}`."
        return
    yield f"Measured on {part.machine}."
    for one in part.tables:
        yield f"### {one.title}"
        yield table(one.columns, one.rows)
        yield from one.notes
