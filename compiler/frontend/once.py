"""What is found once of a model's messages, however often loops and functions write them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mtia_emu.errors import UserError

from .scope import NodeList, cost

DEEPEST = 64  # graphs and functions within one another
NODES = 200_000  # nodes read in one import, with those of functions and loops
REPEATED = 20_000  # nodes, and bodies begun, beyond those in the file: loops and functions written out


class Once:
    """Facts about protobuf messages, found once, and the work of one import, bounded.

    A message is known by its `id`, which no other has while it is held here.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], tuple[Any, Any]] = {}
        self.count = 0
        self.written = 0  # work of the bodies begun so far, each counted once

    def of(self, what: str, message: Any, find: Callable[[], Any]) -> Any:
        """Return what `find` found of a message when this was first asked."""
        key = (what, id(message))
        if key not in self.known:
            self.known[key] = message, find()
        return self.known[key][1]

    def body(self, source: Any, outputs: Sequence[str], constants: int = 0) -> NodeList:
        """Return the body of a graph or function of the file; it has so many constants of its own."""

        def find() -> NodeList:
            body = NodeList.of(source, outputs)
            self.written += sum(map(cost, body.nodes)) + constants // 16
            return body

        return self.of("body", source, find)

    def spend(self, steps: int) -> None:
        """Count work; refuse a model that loops and functions make far larger than its file."""
        self.count += steps
        if self.count > min(NODES, self.written + REPEATED):
            raise UserError(
                f"the model has {self.count} nodes or more once its loops and functions are written out "
                f"(right: at most {REPEATED} beyond those in the file, and {NODES} in all)"
            )
