"""Which pass changes the results of a graph, and which of its rewrites."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtia_emu.compiler import text
from mtia_emu.compiler.check import check, signature_fault
from mtia_emu.compiler.foreign import apply
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.passes import Pass, Rules

from .. import settings
from ..errors import UserError
from ..types import TensorType
from .judge import Inputs, Judge

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fault:
    """A pass that changes results: its place in the pipeline, the graph that it was given, what is off."""

    index: int
    step: Pass
    before: Graph
    what: str


@dataclass(frozen=True)
class Culprit:
    """The rewrite from which on results are wrong: its number of all `rewrites`, and what it changed."""

    number: int
    rewrites: int
    node: str
    diff: str


def first_fault(
    graph: Graph,
    pipeline: Sequence[Pass],
    inputs: Sequence[Inputs],
    tolerance: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Fault | None:
    """Return the first pass after which results are off, unlawful or not there at all; None for a good one.

    The graph must hold its weights (`with_weights`). Each pass is held to the graph that it was given, on all
    of `inputs`, which are in the types of the first graph (`samples_for` gives some). What `Judge` allows
    stands; with a tolerance, that much of an output's largest magnitude beyond what rounding explains.
    """
    refuse_large(graph)
    judge = Judge(graph, inputs, tolerance)
    for index, step in enumerate(pipeline):
        if progress is not None:
            progress("verify", index, len(pipeline))
        wrong, after = _try(step, graph, judge)
        if after is None or wrong:
            return Fault(index, step, graph, wrong)
        graph = after
    return None


def _try(step: Pass, graph: Graph, judge: Judge, most: int | None = None) -> tuple[str, Graph | None]:
    """Return what is wrong with what a pass makes ("" for nothing), and the graph that it makes, if any."""
    try:
        after = step.apply(graph, most)[0] if isinstance(step, Rules) and most else apply(step, graph)[0]
        if after is graph:
            return "", after
        check(after, step.name)
        wrong = signature_fault(graph, after, step.floats)
        return wrong or judge.fault(graph, after, step.tolerance, step.floats), after
    except Exception as error:  # somebody's pass: whatever it raises is what is wrong with it
        hint = " (right: a new constant: those of a graph do not change)" if "read-only" in str(error) else ""
        return f"raises {type(error).__name__}: {error}{hint}", None


def narrow(fault: Fault, first: Graph, inputs: Sequence[Inputs], tolerance: float | None = None) -> Culprit:
    """Return the rewrite that makes a faulty pass wrong, by halving; the whole pass, where it has no rules.

    `first` is the graph whose types `inputs` have. With the rewrites before the culprit results are right.
    """
    step, graph, judge = fault.step, fault.before, Judge(first, inputs, tolerance)
    if not isinstance(step, Rules):
        return Culprit(1, 1, "", _diff(graph, step, None))
    good, bad = 0, _count(step, graph)
    total = bad
    while bad - good > 1:
        middle = (good + bad) // 2
        wrong, _ = _try(step, graph, judge, middle)
        good, bad = (good, middle) if wrong else (middle, bad)
    fired = _fired(step, graph, bad)
    return Culprit(bad, total, fired, _diff(_after(step, graph, good), step, bad, graph))


def _after(step: Rules, graph: Graph, most: int) -> Graph:
    return step.apply(graph, most)[0] if most else graph


def _count(step: Rules, graph: Graph) -> int:
    """Return the rewrites of a pass; of one that raises, as many as make it raise, at most twice too many."""
    try:
        return sum(not o.reason for o in step.apply(graph)[1])
    except Exception:  # the pass is somebody's
        count = 1
    while _survives(step, graph, count):
        count *= 2
    return count


def _survives(step: Rules, graph: Graph, most: int) -> bool:
    try:
        step.apply(graph, most)
    except Exception:  # the pass is somebody's
        return False
    return True


def _fired(step: Rules, graph: Graph, number: int) -> str:
    """Return the line of the node at which a rewrite fires; "" where it raises before it says so."""
    try:
        fired = [o.node for o in step.apply(graph, number)[1] if not o.reason]
    except Exception:  # it is the one that raises
        return ""
    return text.line(fired[-1]) if fired else ""


def _diff(before: Graph, step: Pass, most: int | None, whole: Graph | None = None) -> str:
    """Return the lines that a pass, or its rewrites up to `most`, changes of a graph."""
    try:
        after = step.apply(whole or before, most)[0] if isinstance(step, Rules) else step(before)
    except Exception:  # nothing came of it
        return ""
    old, new = (text.dump(g, digests=False).splitlines() for g in (before, after))
    return "\n".join(line for line in difflib.unified_diff(old, new, "before", "after", lineterm="", n=1))


def with_weights(graph: Graph, seed: int = 0) -> Graph:
    """Return the graph with seeded random data in place of absent weights; see `refuse_large`.

    Floats are normal, scaled so that a product over the last dimension but one keeps magnitudes; integers are
    0 or 1.
    """
    refuse_large(graph)
    return graph.with_nodes(
        graph.nodes, consts={k: c if c.present else _filled(k, c, seed) for k, c in graph.consts.items()}
    )


def _filled(name: str, const: Const, seed: int) -> Const:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return replace(const, data=_random(rng, const.type))


def _random(rng: np.random.Generator, kind: TensorType) -> Array:
    if not kind.dtype.is_float:
        return rng.integers(0, 2, kind.shape).astype(kind.dtype.numpy)
    scale = kind.shape[-2] ** -0.5 if kind.rank > 1 else 1.0
    return np.asarray(rng.standard_normal(kind.shape) * scale).astype(kind.dtype.numpy)


def refuse_large(graph: Graph) -> None:
    """Raise `UserError` for a graph that takes more memory to execute than `settings.MEMORY` allows."""
    need = sum(c.type.bytes for c in graph.consts.values())
    need += max((sum(t.bytes for t in node.types) for node in graph.nodes), default=0)
    most = settings.integer(settings.MEMORY)
    if need > most:
        raise UserError(
            f"executing graph {graph.name} takes {need} bytes or more, at most {most} are allowed: choose "
            f"smaller dimensions, or set {settings.MEMORY.name} higher"
        )
