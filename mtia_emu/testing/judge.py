"""Samples on which graphs are compared, and how far results may be off: element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.inputs.samples import KINDS, random_inputs
from mtia_emu.compiler.reference import evaluate

from ..types import DTYPES
from .compare import Miss, largest, worst
from .spread import FAR, Noise, spread
from .widened import Widened, agreement, widened

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array]
# of an output's largest magnitude: codes that roundings of the narrowest format put on another side
TOLERANCES = {"int8": 5e-2, "fp8_e4m3": 8e-2, "fp8_e5m2": 0.15}
ULPS = 8  # steps of its type that any result may be off
FEW = 4  # draws of a spread that many passes share
LIBRARY = 4  # times that, where another library's functions are as far off as ours
FACTOR = 10  # times a graph's own spread, a root mean square, that results may be off


class Sample(dict[str, Array]):
    """Inputs of a graph, of one of the kinds of `random_inputs`."""

    def __init__(self, kind: str, seed: int, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.kind, self.seed = kind, seed

    @property
    def name(self) -> str:
        """Return what the sample is called in messages."""
        return f"{self.kind}, seed {self.seed}"


def samples_for(
    graph: Graph, seed: int = 0, usual: Callable[[int], Inputs] | None = None, kinds: Sequence[str] = KINDS
) -> list[Sample]:
    """Return a sample of each kind that the graph takes, the usual one first.

    `usual` makes that one, and the integers of those that index what is not there. Weights must be present.
    """
    first = Sample(kinds[0], seed, (usual or (lambda n: random_inputs(graph, n)))(seed))
    samples = [first]
    for kind in kinds[1:]:
        drawn = random_inputs(graph, seed, kind)
        whole = {name: x if graph.inputs[name].dtype.is_float else first[name] for name, x in drawn.items()}
        lawful = next((inputs for inputs in (drawn, whole) if _runs(graph, inputs)), None)
        samples += [] if lawful is None else [Sample(kind, seed, lawful)]
    return samples


def _runs(graph: Graph, inputs: Inputs) -> bool:
    try:
        results(graph, inputs, graph)
    except Exception:  # NumPy refuses some integers by errors of its own
        return False
    return True


def results(graph: Graph, inputs: Inputs, first: Graph) -> dict[str, Array]:
    """Return the outputs by the references, in the types that they have in the graph `first`."""
    with np.errstate(all="ignore"):
        values = evaluate(graph, typed(graph, inputs))
        return {k: v.astype(first.type_of(k).dtype.numpy) if first.has(k) else v for k, v in values.items()}


def typed(graph: Graph, inputs: Inputs) -> dict[str, Array]:
    """Return inputs in the types that a graph has for them."""
    with np.errstate(all="ignore"):
        return {
            name: np.asarray(inputs[name]).astype(kind.dtype.numpy) for name, kind in graph.inputs.items()
        }


@dataclass(frozen=True)
class Allowance:
    """How far results may be off: by the noise of a format, and a `share` of an output's largest magnitude.

    With `hidden` NaN is allowed for any number, and any number for NaN.
    """

    noise: Noise
    share: float = 0.0
    hidden: bool = False


def fault_of(graph: Graph, inputs: Inputs, got: Inputs, expected: Inputs, may: Allowance) -> str:
    """Return what is wrong with results of what was made of a graph; "" where rounding explains it."""
    wrong = _unlike(got, expected)
    if wrong:
        return wrong
    noise = may.noise
    kinds = {DTYPES[noise.floats].numpy} if noise.floats else set()
    allowed: Inputs = {k: ulps(x, kinds) + may.share * largest(x) for k, x in expected.items()}
    if may.hidden:
        allowed = {k: np.where(_nan(x) | _nan(got[k]), np.inf, allowed[k]) for k, x in expected.items()}
    misses = _misses(got, expected, allowed)
    if misses:
        moved = spread(graph, inputs, noise)
        times = FACTOR * (LIBRARY if noise.loose else 1)
        misses = _misses(got, expected, {k: np.maximum(allowed[k], times * moved[k]) for k in expected})
    return str(misses[0]) if misses else ""


@dataclass(frozen=True)
class Given:
    """What a pass gives up: a share of outputs' largest magnitudes, a number format; if `strict`, nothing."""

    loss: float
    floats: str
    strict: bool


@dataclass(frozen=True)
class _Held:
    """Results of a graph on a sample beside those of the graph that it was made of.

    `firm` is what rounding to the types of results alone allows.
    """

    before: Graph
    after: Graph
    sample: Inputs
    index: int
    got: Inputs
    expected: Inputs
    firm: dict[str, Array]


class Judge:
    """Holds graphs to those that they were made of, on samples in the types of the `first` of them.

    With a tolerance, that much of an output's largest magnitude is allowed besides what rounding explains,
    and not what passes say that they give up.
    """

    def __init__(self, first: Graph, samples: Sequence[Inputs], tolerance: float | None = None) -> None:
        self.first, self.samples, self.tolerance = first, samples, tolerance
        self._kept: dict[
            int, tuple[Graph, dict[str, Array]]
        ] = {}  # by sample: the last graph and its results
        self._wide: dict[int, tuple[Graph, Widened | None]] = {}
        self._spread: dict[tuple[int, str, frozenset[str]], dict[str, Array]] = {}

    def fault(self, before: Graph, after: Graph, loss: float = 0.0, floats: str = "") -> str:
        """Return what is wrong with a graph made of another one; "" where results are the same.

        `loss` is the share of an output's largest magnitude that was given up, `floats` the number format
        that floats were given. Where codes are chosen only the first sample counts: the others have numbers
        of many magnitudes, which few codes cannot tell apart.
        """
        few = loss > 0 or coarse(after) > coarse(before)
        strict = not few and not floats
        for index, sample in enumerate(self.samples[:1] if few else self.samples):
            wrong = self._fault(before, after, index, Given(loss, floats, strict))
            if wrong:
                return f"{wrong} (sample: {sample.name})" if isinstance(sample, Sample) else wrong
        return ""

    def _fault(self, before: Graph, after: Graph, index: int, up: Given) -> str:
        sample, same = _rounded(before, after, self.samples[index])
        kept = self._kept.get(index)
        if same and kept is not None and kept[0] is before:
            expected = kept[1]
        else:
            expected = results(before, sample, self.first)
        got = results(after, sample, self.first)
        if same:
            self._kept[index] = (after, got)
        wrong = _unlike(got, expected)
        if wrong:
            return wrong
        pair = before, after if up.floats else before
        firm = {k: ulps(x, {g.type_of(k).dtype.numpy for g in pair}) for k, x in expected.items()}
        if index and not _misses(got, expected, firm):
            return ""
        told = self._told(before, after, sample, index) if up.strict else {}
        if index == 0 and told:
            wrong = _first(got, expected, firm, told)
            if wrong:
                return wrong
        held = _Held(before, after, sample, index, got, expected, firm)
        misses = self._excused(held, up, told)
        return str(misses[0]) if misses else ""

    def _excused(self, held: _Held, up: Given, told: Mapping[str, Array]) -> list[Miss]:
        """Return what is off and not excused: what widened results tell apart, no rounding excuses."""
        firm = held.firm
        allowed = self._allowed(held.after, held.expected, firm, up.loss)
        for name in told:  # what underflows in one order does not in another
            allowed[name] = allowed[name] + _least(held.before.type_of(name).dtype.numpy)

        def beyond() -> list[Miss]:
            bound = {k: np.where(told[k], firm[k], x) if k in told else x for k, x in allowed.items()}
            return _misses(held.got, held.expected, bound)

        misses = beyond()
        for moved in self._spreads(held.before, held.sample, held.index, up.floats) if misses else ():
            allowed = {name: np.maximum(allowed[name], FACTOR * moved[name]) for name in held.expected}
            misses = beyond()
            if not misses:
                break
        return misses

    def _told(self, before: Graph, after: Graph, sample: Inputs, index: int) -> dict[str, Array]:
        """Return where results widened to fp64 are apart; empty where they cannot be had."""
        kept = self._wide.get(index)
        first = kept[1] if kept is not None and kept[0] is before else widened(before, sample)
        second = widened(after, sample)
        self._wide[index] = (after, second)
        if first is None or second is None:
            return {}
        agree = agreement(before, after, sample, first, second, self.tolerance or 0.0) or {}
        hidden = hiding(after)
        return {k: ~x & ~(_nan(first.outputs[k]) & (k in hidden)) for k, x in agree.items()}

    def _spreads(self, before: Graph, given: Inputs, index: int, floats: str) -> Iterator[dict[str, Array]]:
        """Yield how far results move: in the first graph of the same number formats, then in this one."""
        key, noise = (index, floats, frozenset(_floats(before))), Noise(floats)
        if key not in self._spread:
            self._spread[key] = spread(before, typed(before, given), noise, FEW)
        yield self._spread[key]
        yield spread(before, typed(before, given), noise, first=FEW)

    def _allowed(
        self, after: Graph, expected: Inputs, firm: dict[str, Array], loss: float
    ) -> dict[str, Array]:
        """Return what is allowed before roundings are asked: what was given up, codes and NaN."""
        allowed, hidden = {}, hiding(after)
        for name, x in expected.items():
            share = loss + coarse(after, name) if self.tolerance is None else self.tolerance
            more = firm[name] + share * largest(x)
            allowed[name] = np.where(_nan(x), np.inf, more) if name in hidden else more
        return allowed


def _first(got: Inputs, expected: Inputs, firm: Inputs, told: Mapping[str, Array]) -> str:
    """Return what is wrong where widened results are apart, though rounded they may be near; else ""."""
    none = np.asarray(False)
    bound = {k: np.where(told.get(k, none), firm[k], np.inf) for k in expected}
    misses = _misses(got, expected, bound)
    if misses:
        return str(misses[0])
    for name, apart in told.items():
        if apart.any():
            index = tuple(int(i) for i in np.argwhere(apart)[0])
            where = f"[{', '.join(map(str, index))}]" if index else ""
            value = float(got[name][index])
            return (
                f"output %{name}{where} is {value:.5g}, near only by rounding: in fp64 it is another number"
            )
    return ""


def ulps(expected: Array, kinds: set[Any]) -> Array:
    """Return a few steps of the coarsest of some types, in the same shape; 0 for integers.

    Near 0 those of 32 bits and more are the least normal number: libraries may flush what is below it.
    """
    if expected.dtype.kind in "iub":
        return np.zeros(())
    infos = [ml_dtypes.finfo(kind) for kind in (*kinds, expected.dtype) if np.dtype(kind).kind not in "iub"]
    eps = max(float(info.eps) for info in infos)
    tiny = max(float(info.tiny if info.bits >= 32 else info.smallest_subnormal) for info in infos)
    return ULPS * (eps * np.abs(np.nan_to_num(_wide(expected), posinf=0.0, neginf=0.0)) + tiny)


def _least(kind: np.dtype[Any]) -> float:
    """Return below what numbers of a type are near the end of its range; 0 for integers."""
    return 0.0 if kind.kind in "iub" else float(ml_dtypes.finfo(kind).smallest_subnormal) ** FAR


def _unlike(got: Inputs, expected: Inputs) -> str:
    """Return which output is not there, or is of another type or shape."""
    for name, x in expected.items():
        if name not in got:
            return f"output %{name} is not there"
        if (got[name].shape, got[name].dtype) != (x.shape, x.dtype):
            got_text, right = (f"{a.dtype}{list(a.shape)}" for a in (got[name], x))
            return f"output %{name} is {got_text}, expected {right}"
    return ""


def _misses(got: Inputs, expected: Inputs, allowed: Inputs) -> list[Miss]:
    misses = (worst(name, got[name], x, allowed[name]) for name, x in expected.items())
    return [miss for miss in misses if miss is not None]


def _rounded(before: Graph, after: Graph, sample: Inputs) -> tuple[Inputs, bool]:
    """Return a sample as both graphs can hold it, and whether that is all of it."""
    changed = {
        name: kind
        for name, kind in after.inputs.items()
        if name in before.inputs and before.inputs[name].dtype != kind.dtype
    }
    with np.errstate(all="ignore"):
        given = {
            name: x.astype(changed[name].dtype.numpy).astype(x.dtype) if name in changed else x
            for name, x in ((name, np.asarray(x)) for name, x in sample.items())
        }
    return given, not changed


def hides(graph: Graph) -> bool:
    """Return whether a graph may give numbers where another gives NaN.

    Attention that is guarded takes any row of NaN for one that sees nothing, and does not read what it masks.
    """
    return bool(hiding(graph))


def hiding(graph: Graph) -> frozenset[str]:
    """Return the outputs behind attention that may give numbers where another gives NaN."""
    return _behind(graph, (n for n in graph.nodes if _guards(n)))


def _guards(node: Node) -> bool:
    return node.op == "attention" and ("diagonal" in node.attrs or "guarded" in node.attrs)


def _behind(graph: Graph, nodes: Iterable[Node]) -> frozenset[str]:
    """Return the outputs that depend on any of some nodes."""
    reached = {value for node in nodes for value in node.outputs}
    for node in graph.nodes if reached else ():
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return frozenset(reached.intersection(graph.outputs))


def _floats(graph: Graph) -> dict[str, float]:
    """Return the float types of 16 bits and more that a graph has, each with the size of its steps."""
    kinds = {kind.dtype for node in graph.nodes for kind in node.types}
    kinds |= {kind.dtype for kind in graph.inputs.values()}
    return {k.name: float(ml_dtypes.finfo(k.numpy).eps) for k in kinds if k.is_float and k.bits >= 16}


def coarse(graph: Graph, output: str | None = None) -> float:
    """Return how far codes that fall on another side move results, or one, of its largest magnitude."""
    makers = [node for node in graph.nodes if _quantises(node, graph)]
    types = {node.type.dtype.name for node in makers if output is None or output in _behind(graph, [node])}
    return max((allowed for name, allowed in TOLERANCES.items() if name in types), default=0.0)


def _quantises(node: Node, graph: Graph) -> bool:
    """Return whether a node rounds floats to the types of codes."""
    return node.op in ("quantise_rows", "map", "matmul_map", "matmul_packed") and any(
        graph.type_of(v).dtype.is_float and graph.type_of(v).dtype.bits > 8 for v in node.inputs if v
    )


def _wide(x: Array) -> Array:
    return x.astype(np.float64)


def _nan(x: Array) -> Array:
    return np.isnan(_wide(x))
