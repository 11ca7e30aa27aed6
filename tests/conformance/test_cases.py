"""ONNX's own operator tests, executed by the emulator: right, or refused with a reason; never wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case.test_case import TestCase

from mtia_emu.conformance import cases
from mtia_emu.errors import UserError

PARTS = 8
QUICK = 2  # parts that `make test` takes
LEAST = 1800  # of 1,884 cases of onnx 1.23
WITHOUT = 80  # cases at most that are refused


@pytest.mark.parametrize(
    "part", [*range(QUICK), *(pytest.param(i, marks=pytest.mark.deep) for i in range(QUICK, PARTS))]
)
def test_no_operator_computes_a_wrong_value(part: int) -> None:
    names = [case.name for case in cases.cases()][part::PARTS]
    verdicts = cases.run(names)
    assert [v.case for v in verdicts] == names
    assert [f"{v.case}: {v.reason}" for v in verdicts if v.status == "failed"] == []
    refused = [v for v in verdicts if v.status == "unsupported"]
    assert len(refused) <= WITHOUT / PARTS + 6 and all(v.reason for v in refused)
    assert sum(v.status == "passed" for v in verdicts) >= LEAST / PARTS - 6  # the parts differ a little


def case_of(nodes: list[onnx.NodeProto], right: np.ndarray) -> TestCase:
    """Return a case of one input, [1, 2, 3], with that right answer."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, right.shape)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]))
    sets = [([np.array([1, 2, 3], np.float32)], [right])]
    return TestCase("test_own", "test_own", None, None, model, sets, "node", 1e-3, 1e-7)


def test_a_wrong_answer_is_a_failure() -> None:
    node = [helper.make_node("Neg", ["x"], ["y"])]
    wrong = cases.judge(case_of(node, np.array([-1, -2, 3], np.float32)), "Neg")
    assert (wrong.status, wrong.reason) == ("failed", "y is off by up to 6")
    right = cases.judge(case_of(node, np.array([-1, -2, -3], np.float32)), "Neg")
    assert (right.status, right.bound, right.folded) == ("passed", (), False)


def test_a_result_of_another_type_or_shape_is_a_failure() -> None:
    node = [helper.make_node("Neg", ["x"], ["y"])]
    for right in (np.zeros(2, np.float32), np.zeros(3, np.float64)):
        assert cases.judge(case_of(node, right), "Neg").status == "failed"


def test_a_crash_is_a_failure_and_a_refusal_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of([helper.make_node("Unique", ["x"], ["y"])], np.zeros(3, np.float32))
    assert cases.judge(case, "Unique").status == "unsupported"

    def crash(*_: object) -> None:
        raise ZeroDivisionError("out of luck")

    monkeypatch.setattr(cases, "_executed", crash)
    case = case_of([helper.make_node("Neg", ["x"], ["y"])], np.zeros(3, np.float32))
    verdict = cases.judge(case, "Neg")
    assert (verdict.status, verdict.reason) == ("failed", "ZeroDivisionError: out of luck")


def test_only_operands_that_must_be_known_are_bound() -> None:
    (verdict,) = cases.run(["test_reshape_extended_dims"])
    assert (verdict.status, verdict.bound, verdict.folded) == ("passed", ("shape",), False)
    (verdict,) = cases.run(["test_add"])
    assert (verdict.status, verdict.bound) == ("passed", ())


def test_a_case_that_is_all_known_is_said_to_leave_nothing_to_execute() -> None:
    (verdict,) = cases.run(["test_nonzero_example"])
    assert (verdict.status, verdict.bound, verdict.folded) == ("passed", ("condition",), True)


@pytest.mark.deep  # each process makes all cases anew
def test_verdicts_do_not_depend_on_workers() -> None:
    names = cases.of_operators(["Einsum", "Split"])
    assert cases.run(names, workers=2) == cases.run(names)


def test_unknown_operators_and_cases_are_refused() -> None:
    with pytest.raises(UserError, match="unknown operator with tests 'Einsun'; did you mean 'Einsum'"):
        cases.of_operators(["Einsun"])
    with pytest.raises(UserError, match="unknown test case 'test_addd'; did you mean 'test_add'"):
        cases.run(["test_addd"])
