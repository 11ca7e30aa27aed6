"""What cannot be imported, and how the user is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtia_emu.errors import UserError


@dataclass(frozen=True)
class Failure:
    """An ONNX node that cannot be imported."""

    node: str
    op: str
    reason: str
    value: str = ""


class NotImported(UserError):
    """What cannot be imported; were the values of `inputs` known, it might be."""

    def __init__(self, message: str, inputs: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.inputs = inputs


class Placed(UserError):
    """A user error whose message says already where it arose."""


def told(path: Path, failures: Sequence[Failure]) -> str:
    """Return the message that names every node that could not be imported, by op type."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        kinds.setdefault((failure.op, failure.reason), []).append(failure.node)
    lines = []
    for (op, reason), nodes in kinds.items():
        shown = ", ".join(nodes[:3]) + (", ..." if len(nodes) > 3 else "")
        lines.append(f"  {op} x{len(nodes)}: {reason} ({shown})")
    return f"{path}: {len(failures)} nodes are not supported:\n" + "\n".join(lines)
