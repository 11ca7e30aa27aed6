"""Mappings that a user fixes, by the names of layers: a file or a text names the layer and its choices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mtia_emu.errors import UserError, nearest
from mtia_emu.files.toml import file_text, parse

from ..user_kernels import kernel_of
from .steps import Step

SUFFIX, TABLE = ".toml", "mappings"
RIGHT = f'right: a file with a table [{TABLE}], or "LAYER: MAPPING; LAYER: MAPPING"'
MOST_PATTERNS = 10_000
_TEXT = re.compile(r"^[ -~]{1,400}$")


@dataclass(frozen=True)
class FixedMappings:
    """The texts of mappings by layer, or by a pattern of layers' names with `*`; `source` is the option's."""

    texts: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the file that the texts were read from, if any."""
        return (Path(self.source),) if self.source.endswith(SUFFIX) else ()

    def of(self, step: Step) -> str:
        """Return the text for a step: of its own name before patterns, the first of these; "" without one."""
        for pattern, text in self.texts:
            if pattern in names_of(step):
                return text
        return next((t for pattern, t in self.texts if _fits(pattern, step)), "")

    def refuse_unknown(self, steps: Iterable[Step]) -> None:
        """Raise `UserError` for a name that is of no step, or of none whose kernel can be mapped."""
        if not self.texts:
            return
        mapped = [step for step in steps if kernel_of(step).mapped]
        known = dict.fromkeys(names_of(step)[0] for step in mapped)
        for pattern, _ in self.texts:
            if not any(_fits(pattern, step) for step in mapped):
                some = ", ".join(list(known)[:6]) + (", ..." if len(known) > 6 else "")
                raise UserError(
                    f"--mapping {self.source!r}: no layer {pattern!r} that has a mapping"
                    f"{nearest(pattern, known)} (right: {some or 'there is none'})"
                )


NONE_FIXED = FixedMappings()


def names_of(step: Step) -> tuple[str, ...]:
    """Return what a report calls a step, and the name of its node."""
    return tuple(dict.fromkeys((step.origin or step.name, step.name)))


def _fits(pattern: str, step: Step) -> bool:
    names = names_of(step)
    return pattern in names or fnmatchcase(names[0], pattern)


def fixed_mappings(spelling: str | None) -> FixedMappings:
    """Return the mappings of a file, or of a text; raise `UserError` for what is neither."""
    if spelling is None:
        return NONE_FIXED
    pairs = _of_file(Path(spelling)) if spelling.endswith(SUFFIX) else _of_text(spelling)
    if not pairs or len(pairs) > MOST_PATTERNS:
        raise UserError(f"--mapping {spelling!r} fixes {len(pairs)} mappings ({RIGHT})")
    for name, text in pairs:
        if not isinstance(text, str) or not _TEXT.match(text):
            raise UserError(
                f"--mapping {spelling!r}: the mapping of {name!r} is {str(text)[:60]!r} (right: text as "
                "`mtia-emu show --at mappings` prints it)"
            )
    return FixedMappings(tuple((name, str(text)) for name, text in pairs), spelling)


def _of_file(path: Path) -> list[tuple[str, object]]:
    if not path.is_file():
        raise UserError(f"--mapping: there is no file {path} ({RIGHT})")
    values = parse(file_text(path, "mappings", ()), str(path))
    table = values.get(TABLE)
    if set(values) != {TABLE} or not isinstance(table, dict):
        raise UserError(f"mappings {path} has {', '.join(sorted(values)) or 'nothing'} ({RIGHT})")
    return list(table.items())


def _of_text(spelling: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for part in filter(str.strip, spelling.split(";")):
        name, colon, text = part.rpartition(":")
        if not colon or not name.strip():
            raise UserError(f"--mapping {spelling!r}: {part.strip()!r} names no layer ({RIGHT})")
        pairs.append((name.strip(), text.strip()))
    return pairs
