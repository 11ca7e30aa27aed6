"""A system in rows: what it is made of, with the source noted beside each number; and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .bounds import bisection_bytes_per_s
from .load import system_text
from .topology import System


@dataclass(frozen=True)
class FileRow:
    """One number or name of a system's file; `source` is the comment on its line."""

    key: str
    value: object
    source: str


def facts(name_or_path: str) -> list[FileRow]:
    """Return all that the file of a system says, in order; groups are keyed by their name."""
    import tomlkit

    found: list[FileRow] = []

    def visit(table: Any, prefix: str) -> None:
        for key, item in table.body:
            if key is None:
                continue
            if isinstance(item, tomlkit.items.AoT):
                for group in item:
                    visit(group.value, f"{prefix}{key.key}.{group.get('name', '?')}.")
            elif isinstance(item, tomlkit.items.Table):
                visit(item.value, f"{prefix}{key.key}.")
            elif not (prefix and key.key == "name"):
                found.append(FileRow(prefix + key.key, item.unwrap(), item.trivia.comment.lstrip("# ")))

    visit(tomlkit.parse(system_text(name_or_path.rpartition("*")[0] or name_or_path)), "")
    return found


def as_json(system: System) -> dict[str, object]:
    """Return a system as plain data: ranks, switches, each direction of each link, host, library."""
    return {
        "schema": "mtia-emu.system.v1",
        "name": system.name,
        "text": system.text,
        "ranks": [
            {"name": name, **asdict(end)} for name, end in zip(system.ranks, system.endpoints, strict=True)
        ],
        "groups": [list(group) for group in system.groups],
        "switches": [asdict(switch) for switch in system.switches],
        "links": [asdict(link) for link in system.links],
        "host": asdict(system.host),
        "host_w": system.host_w,
        "library": system.library.model_dump(mode="json"),
        "bisection_bytes_per_s": bisection_bytes_per_s(system),
    }
