"""Key and value caches that grow in place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..graph import Match, Node, Rewrite, Skip
from ..ops.base import integer
from .base import Rule, Rules


@dataclass(frozen=True)
class AppendCaches(Rules):
    """Make concat(past, new), of an input of the model to one of its outputs, the op `append`.

    The past then lies where the output begins, and only what is new is written. That is so where the caller
    leaves room behind the past and hands in one memory for both, as serving runtimes do with a cache of keys
    and values; the report says so. The past must have no other reader.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_append,)


def _append(node: Node, match: Match) -> Rewrite | Skip | None:
    if node.op != "concat" or len(node.inputs) < 2 or not match.is_output(node.output):
        return None
    past = node.inputs[0]
    if not match.is_input(past):
        return Skip("its first operand is no input of the model")
    if match.only_user(past) is not node or past in node.inputs[1:]:
        return Skip(f"%{past} has other readers")
    if not match.type_of(past).shape[integer(node.attrs, "axis")]:
        return Skip("there is no past")
    return Rewrite((replace(node, op="append"),))
