"""Conformance: ONNX's own tests of its operators, each compiled and executed by the emulator.

An operand that a static compiler must know (a shape, axes, a trip count) is bound to the test's value when
the test is compiled, as it is in a model whose exporter made it a constant; nothing else is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.compiler.frontend.importer import NotImported
from mtia_emu.compiler.frontend.load import InputBindings, import_model
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.draws import rows_drawn
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import compile_graph

from .. import api, processes
from ..errors import UserError, refuse_unknown
from ..machine.chip import load_chip
from ..types import TensorType, dtype_of

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
CHUNK = 20  # cases that a worker takes at a time
CHIP = "tiny"  # small: what is computed does not depend on the grid's size, what it takes to run a test does


@dataclass(frozen=True)
class Verdict:
    """What became of one test: passed, failed (a wrong answer, or a crash) or unsupported, and why.

    `bound` are the operands that had to be known; `folded` says that nothing was left to execute.
    """

    case: str
    op: str
    status: str
    reason: str = ""
    bound: tuple[str, ...] = ()
    folded: bool = False


def cases() -> list[Any]:
    """Return the test cases that the installed onnx generates for its operators, in its order."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


RANDOM = "its values are random, and onnx draws them by a generator of its own"


def operator_of(case: Any, known: Mapping[str, Any]) -> str:
    """Return the operator that a case tests; one of a function's body tests the function's operator."""
    node = known[re.sub(r"_expanded.*", "", case.name)].model.graph.node[0]
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def judge(case: Any, op: str) -> Verdict:
    """Compile and execute one test case; return what became of it."""
    bound: dict[str, Array] = {}
    try:
        for inputs, expected in case.data_sets:
            given = _arrays(case.model.graph.input, inputs)
            graph, bound = _imported(case, given)
            if rows_drawn(graph.nodes):
                return Verdict(case.name, op, "unsupported", RANDOM, tuple(bound))
            got = _executed(graph, given)
            reason = _difference(case, got, _flat(_arrays(case.model.graph.output, expected)))
            if reason:
                return Verdict(case.name, op, "failed", reason, tuple(bound))
    except UserError as error:
        return Verdict(case.name, op, "unsupported", str(error), tuple(bound))
    except Exception as error:  # a crash is a finding, not the end of the run
        return Verdict(case.name, op, "failed", f"{type(error).__name__}: {error}", tuple(bound))
    return Verdict(
        case.name,
        op,
        "passed",
        "",
        tuple(bound),
        all(n.op == "copy" for n in graph.nodes) and not graph.inputs,
    )


def _arrays(values: Any, data: Any) -> dict[str, Any]:
    return {value.name: _array(x) for value, x in zip(values, data, strict=True)}


def _array(x: Any) -> Any:
    """Return data as an array; those of types that NumPy lacks are given as TensorProtos."""
    from onnx import TensorProto, numpy_helper

    if isinstance(x, TensorProto):
        return numpy_helper.to_array(x)
    return x if x is None or isinstance(x, list) else np.asarray(x)


def _imported(case: Any, given: Mapping[str, Any]) -> tuple[Graph, dict[str, Array]]:
    """Return the graph of a case, and the operands that had to be bound to import it."""
    bound: dict[str, Array] = {}
    arrays = {name: x for name, x in given.items() if isinstance(x, np.ndarray)}
    shapes = {name: x.shape for name, x in arrays.items()}
    sequences = {
        name: None if x is None else [TensorType(dtype_of(item), item.shape) for item in x]
        for name, x in given.items()
        if name not in arrays
    }
    while True:
        try:
            inputs = InputBindings(shapes=shapes, values=bound, sequences=sequences)
            return import_model(case.model, Path(f"{case.name}.onnx"), inputs), bound
        except NotImported as error:
            new = {name: arrays[name] for name in error.inputs if name in arrays and name not in bound}
            if not new:
                raise
            bound |= new


def _executed(graph: Graph, given: Mapping[str, Any]) -> dict[str, Array]:
    chip = load_chip(CHIP)
    own = own_dtype(graph)
    program = compile_graph(graph, chip, dtype=own.name if own.bits >= 16 else None).program
    flat = _flat(given)
    return api.run_program(program, chip, inputs={k: flat[k] for k in graph.inputs}, gpu=None).outputs


def _flat(values: Mapping[str, Any]) -> dict[str, Array]:
    """Return arrays by name, those of a sequence as `NAME.0`, `NAME.1`, ..."""
    flat: dict[str, Array] = {}
    for name, x in values.items():
        items = {name: x} if isinstance(x, np.ndarray) else {f"{name}.{i}": v for i, v in enumerate(x or ())}
        flat |= items
    return flat


def _difference(case: Any, got: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    """Return how outputs differ from the expected ones beyond tolerance; "" when they do not.

    The tolerance of a float is the case's own, or rounding where that is more: two units in the last place,
    and, of the output's largest magnitude, 8 (fp32 and wider) or 1 (narrower) relative to its sums.
    """
    if set(got) != set(expected):
        return f"the outputs are {', '.join(got) or 'none'}, not {', '.join(expected) or 'none'}"
    for name, right in expected.items():
        mine = got[name]
        if (mine.dtype, mine.shape) != (right.dtype, right.shape):
            return f"{name} is {mine.dtype}{list(mine.shape)}, not {right.dtype}{list(right.shape)}"
        if not _close(mine, right, case.rtol, case.atol):
            worst = float(np.nanmax(np.abs(mine.astype(np.float64) - right.astype(np.float64)), initial=0.0))
            return f"{name} is off by up to {worst:.3g}"
    return ""


def _close(mine: Array, right: Array, rtol: float, atol: float) -> bool:
    if not dtype_of(right).is_float:
        return bool(np.array_equal(mine, right))
    import ml_dtypes

    unit = float(ml_dtypes.finfo(right.dtype).eps)
    a, b = mine.astype(np.float64), right.astype(np.float64)
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    share = 8 if right.dtype.itemsize >= 4 else 1
    if right.dtype.itemsize == 1:
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(np.allclose(a, b, max(rtol, 2 * unit), max(atol, share * unit * largest), equal_nan=True))


def _judge_named(names: Sequence[str]) -> list[Verdict]:
    known = _known()
    return [judge(known[name], operator_of(known[name], known)) for name in names]


@cache
def _known() -> dict[str, Any]:
    return {case.name: case for case in cases()}


def run(
    names: Sequence[str] | None = None, workers: int = 1, progress: Progress | None = None
) -> list[Verdict]:
    """Return the verdict of every case, or of those named, in onnx's order whatever the number of workers."""
    all_names = list(_known())
    for name in names or ():
        if name not in all_names:
            raise refuse_unknown("test case", name, all_names)
    chosen = all_names if names is None else sorted(set(names), key=all_names.index)
    chunks = [chosen[i : i + CHUNK] for i in range(0, len(chosen), CHUNK)]
    verdicts: list[Verdict] = []
    with processes.pool(workers) if workers > 1 else nullcontext() as pool:
        for judged in (map if pool is None else pool.map)(_judge_named, chunks):
            verdicts += judged
            if progress is not None:
                progress("conformance", len(verdicts), len(chosen))
    return verdicts


def of_operators(operators: Iterable[str]) -> list[str]:
    """Return the names of the cases that test any of these operators; refuse an unknown one."""
    known = _known()
    tested = {name: operator_of(case, known) for name, case in known.items()}
    chosen = set(operators)
    for operator in chosen:
        if operator not in tested.values():
            raise refuse_unknown("operator with tests", operator, sorted(set(tested.values())))
    return [name for name, operator in tested.items() if operator in chosen]
