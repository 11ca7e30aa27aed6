"""The compiler hears all that a user's kernel says, and says whose fault a wrong answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.lower.steps import Step
from mtia_emu.compiler.user_kernels import INSTALLED, STEP, UserKernel, kernel_of
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.kernel import Kernel, KernelCall, unmemoised

from mtia_emu import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import COMMAND, Block, Operand
from mtia_emu.types import FP32, TensorType

CHIP = load_chip("tiny")
X, OUT = Operand(FP32, (4, 8), (8, 1), "sram"), Operand(FP32, (4, 8), (8, 1), "sram", written=True)
OWN = (("by", 2.0),)  # attributes as the kernel sees them; a step has them as one parameter
CALL = KernelCall((X,), (OUT,), (("attrs", OWN), ("op", "com_example_Says")))
OWN_CALL = KernelCall((X,), (OUT,), OWN)
MATRIX = TensorType(FP32, (4, 8))


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]


IN, WHOLE, TOP, REST = Tensor((4, 8)), Tensor((4, 8)), Tensor((3, 8)), Tensor((1, 8))


def block(*operands: Operand) -> Block:
    return Block("says", operands, (), np.zeros(0, COMMAND))


def portion(out: Tensor, attrs: Any) -> Portion:
    return Portion((IN,), (out,), attrs)


PACKED = {"attrs": OWN, "op": "com_example_Says"}
SAID: dict[str, Any] = {  # of a member that is no method
    "op": "com.example::Says",
    "name": "says_so",
    "summary": "kernel Says of com.example::Says",
    "reads_views": True,
    "writes_views": True,
    "shares_launch": True,
    "stages_both": True,
    "slow_search": True,
    "copies": True,
    "weight": 0,
    "overwrites": 0,
    "mapped": True,
}
# of a method: what it is asked; what the kernel is asked then, what it answers; what the compiler hears
ASKED: dict[str, tuple[Any, Any, Any, Any]] = {
    "takes": (([MATRIX], {"by": 2.0}), ([MATRIX], {"by": 2.0}), False, False),
    "problem": ((CALL,), (OWN_CALL,), 7, 7),
    "candidates": ((7, CHIP, 2, unmemoised), (7, CHIP, 2, unmemoised), (3, 1, 2), [3, 1]),
    "spelled": ((3,), (3,), "rows=3", "rows=3"),
    "fixed": (("rows=3", CALL, CHIP), ("rows=3", OWN_CALL, CHIP), 3, 3),
    "emit": ((CHIP, PACKED, (X,), (OUT,)), (CHIP, dict(OWN), (X,), (OUT,)), block(X, OUT), None),
    "emit_mapping": ((CHIP, CALL, 3), (CHIP, OWN_CALL, 3), block(X, OUT), None),
    "arranged": (((X,), (OUT,)), ((X,), (OUT,)), [OUT, X], [OUT, X]),
    "macs": ((PACKED,), (dict(OWN),), 12, 12),
    "streamed": (((X, IN), (OUT,)), ((X, IN), (OUT,)), [IN], [IN]),
    "halves": (
        (portion(WHOLE, PACKED),),
        (portion(WHOLE, dict(OWN)),),
        [portion(TOP, {"by": 3.0}), portion(REST, {"by": 2.0})],
        [portion(TOP, {**PACKED, "attrs": (("by", 3.0),)}), portion(REST, PACKED)],
    ),
}
MEMBERS = sorted(name for name in vars(Kernel) if not name.startswith("_"))


def guarded(monkeypatch: pytest.MonkeyPatch, **members: Any) -> Kernel:
    """Return a user's kernel with such members as the compiler asks it."""
    kernel = type("Says", (UserKernel,), {"op": SAID["op"], **members})()
    monkeypatch.setitem(INSTALLED, "says", kernel)
    return kernel_of(Step("n", "says", STEP, (), (), (("op", "says"),)))


@pytest.mark.parametrize("name", MEMBERS)
def test_whatever_a_kernel_can_say_is_heard(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in SAID:
        assert getattr(guarded(monkeypatch, **{name: SAID[name]}), name) == SAID[name]
        return
    given, own, answer, heard = ASKED[name]
    calls: list[Any] = []

    def member(self: Kernel, *args: Any) -> Any:
        calls.append(args)
        return answer

    result = getattr(guarded(monkeypatch, **{name: member}), name)(*given)
    assert calls == [own]
    assert result is answer if heard is None else result == heard


@pytest.mark.parametrize("name", ASKED)
def test_what_a_kernel_raises_is_its_authors_to_mend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def member(self: Kernel, *args: Any) -> Any:
        raise LookupError("nothing there")

    with pytest.raises(UserError, match=r"^kernel Says of com.example::Says: \w+ raises LookupError"):
        getattr(guarded(monkeypatch, **{name: member}), name)(*ASKED[name][0])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("arranged", [X]),
        ("arranged", [X, X]),
        ("arranged", [X, OUT, X]),
        ("macs", -1),
        ("macs", 0.5),
        ("macs", None),
        ("streamed", [OUT]),
        ("halves", [portion(WHOLE, {})]),
        ("halves", [portion(WHOLE, {}), portion(WHOLE, {})]),
        ("halves", [portion(WHOLE, {}), portion(Tensor((0, 8)), {})]),
        ("halves", [Portion((None,), (x,), {}) for x in (TOP, REST)]),
        ("emit", block(OUT, X)),
        ("emit", None),
    ],
)
def test_what_no_kernel_may_answer_is_refused(
    name: str, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = guarded(monkeypatch, **{name: lambda self, *args: answer})
    with pytest.raises(UserError, match=r"^kernel Says of com.example::Says: .*(right: |must begin with)"):
        getattr(kernel, name)(*ASKED[name][0])


def test_halves_that_are_none_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guarded(monkeypatch).halves(portion(WHOLE, PACKED)) == []
