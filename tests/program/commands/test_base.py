"""A kind of command is whole or is not declared."""

from __future__ import annotations

from typing import Any

import pytest

from mtia_emu.program.commands.base import MEMBERS, CommandKind
from mtia_emu.program.commands.network import AddAccumulator

WHOLE: dict[str, Any] = {name: getattr(AddAccumulator, name) for name in MEMBERS}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_kind_that_lacks_a_member_cannot_be_declared(name: str) -> None:
    members = {n: member for n, member in WHOLE.items() if n != name}
    command = "a command" if name == "opcode" else "command REDUCE"
    with pytest.raises(TypeError, match=rf"^{command}, class Half, lacks {name} \("):
        type("Half", (CommandKind,), members)


def test_all_that_a_kind_lacks_is_named() -> None:
    members = {n: member for n, member in WHOLE.items() if n not in ("count", "cost")}
    with pytest.raises(TypeError, match=r"lacks count \(.*\), cost \(how long it takes"):
        type("Half", (CommandKind,), members)


def test_a_kind_that_has_them_all_can_be_declared() -> None:
    assert issubclass(type("Whole", (CommandKind,), WHOLE), CommandKind)
