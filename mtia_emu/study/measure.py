"""What each pass of a pipeline does to the time that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mtia_emu.compiler.check import Known, check
from mtia_emu.compiler.formats import choose_format, format_text
from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.ops import work
from mtia_emu.compiler.ops.embedding_bag import bag_operand
from mtia_emu.compiler.passes import Fold, Legalise, Pass, Prune, Quantise, SetPrecision
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import DEFAULTS, compile_lowered, lower

from ..engine.lookups import Lookups
from ..engine.run import report
from ..machine.chip import Chip
from ..options import Options
from ..program.isa import Program
from ..sums import add_up
from ..types import dtype
from ..view import units
from .tuning import tuning

NEEDED = (Legalise, Fold, SetPrecision, Quantise, Prune)  # choose the number format, or tidy: always run
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """A run with the passes up to the one named.

    `utilization` is the imported model's multiply-adds over what the matrix units could do in the time: work
    that a pass leaves out, as the masked half of causal attention, still counts. `dram_share` is the time in
    which DRAM at its peak would move `least_dram_bytes` of the graph after all passes, or what it moves where
    that is less, over the time.
    """

    name: str
    cycles: float
    utilization: float
    dram_share: float
    launches: int
    dram_bytes: float


def measure(
    graph: Graph,
    pipeline: Sequence[Pass],
    chip: Chip,
    options: Options = DEFAULTS,
    *,
    lookups: Callable[[Program], Mapping[int, Lookups]] | None = None,
    progress: Progress | None = None,
) -> Iterator[Measured]:
    """Yield the time of a graph with only the passes that are always run, then with one pass more each time.

    The passes in `NEEDED` are always run: without them there is another number format, which no time can be
    compared with. `lookups` gives those of a program's tables that are known.
    """
    form, search = choose_format(own_dtype(graph), chip, format_text(options)), tuning(options)
    least = least_dram_bytes(lower(graph, tuple(pipeline))) / chip.dram_bytes_per_cycle
    macs = sum(work(graph, node).macs for node in graph.nodes)
    prefixes = _Prefixes(graph, pipeline)
    lowered: Graph | None = None
    for count in range(len(prefixes.optional) + 1):
        if progress is not None:
            progress("measure", count, len(prefixes.optional) + 1)
        before, lowered = lowered, prefixes.lowered(count)
        name = pipeline[prefixes.optional[count - 1]].name if count else "none"
        if lowered is not before:
            program = compile_lowered(lowered, chip, dtype=form.name, options=options, tuning=search)
            timed = report(program, chip, lookups(program) if lookups else {})
            traffic = timed.traffic.dram_read_bytes + timed.traffic.dram_write_bytes
            peak = chip.peak_macs_per_cycle(dtype(form.name)) * timed.cycles
            needed = min(least, traffic / chip.dram_bytes_per_cycle)  # of a warm run some is in SRAM
            shares = _share(macs, peak), _share(needed, timed.cycles)
        yield Measured(name, timed.cycles, *shares, len(program.launches), traffic)


class _Prefixes:
    """Graphs after a pipeline's needed passes and the first of the others; none is made twice."""

    def __init__(self, graph: Graph, pipeline: Sequence[Pass]) -> None:
        self.graph, self.pipeline = graph, pipeline
        self.optional = [i for i, step in enumerate(pipeline) if not isinstance(step, NEEDED)]
        self._known: Known = {}
        self._ran: dict[int, tuple[Graph, Graph]] = {}  # by pass: what it was given last, and its result

    def lowered(self, count: int) -> Graph:
        """Return the graph after the first `count` optional passes; the same one as before if it is equal."""
        left_out = set(self.optional[count:])
        graph = self.graph
        for index in range(len(self.pipeline)):
            graph = graph if index in left_out else self._after(index, graph)
        return graph

    def _after(self, index: int, given: Graph) -> Graph:
        before, after = self._ran.get(index, (None, given))
        if before is not given:
            step = self.pipeline[index]
            after = check(step(given), step.name, self._known)
            after = given if _equal(after, given) else after
            self._ran[index] = (given, after)
        return after


def _equal(one: Graph, other: Graph) -> bool:
    """Return whether two graphs are alike to the last constant: compiled, they give the same program."""
    same = one.nodes == other.nodes and one.outputs == other.outputs
    same = same and list(one.inputs.items()) == list(other.inputs.items()) and one.notes == other.notes
    return same and [(k, id(c)) for k, c in one.consts.items()] == [
        (k, id(c)) for k, c in other.consts.items()
    ]


def _share(part: float, whole: float) -> float:
    """Return a part of a whole; 0 of nothing: a graph without work takes no time."""
    return part / whole if whole else 0.0


def least_dram_bytes(graph: Graph) -> int:
    """Return the bytes of the model's own tensors, weights, inputs and outputs, each moved once.

    Of a table the rows looked up count, no more than there are; of a state that grows, what is new.
    """
    read: dict[str, int] = {}
    for node in graph.nodes:
        for position, value in enumerate(node.inputs):
            if value in graph.inputs or value in graph.consts:
                read[value] = max(read.get(value, 0), _read_bytes(graph, node, position))
    written = 0
    for value in graph.outputs:
        size, before = graph.type_of(value).bytes, graph.states.get(value)
        past = graph.type_of(before).bytes if before else 0
        written += size - past if past < size else size
    return add_up(read.values()) + written


def _read_bytes(graph: Graph, node: Node, position: int) -> int:
    """Return the bytes that a node must read of an operand."""
    kind = graph.type_of(node.inputs[position])
    part, first = bag_operand(node.op, node.attrs, position)
    if part == "table":
        looked_up = graph.type_of(node.inputs[first + 1]).size
        return min(looked_up, kind.shape[0]) * kind.bytes // max(kind.shape[0], 1)
    return min(kind.bytes, node.type.bytes) if node.op == "gather" and position == 0 else kind.bytes


COLUMNS = ["passes up to", "cycles", "change", "of peak", "of DRAM", "launches", "DRAM"]


def rows(measured: Iterable[Measured]) -> Iterator[list[str]]:
    """Yield the cells of a table with `COLUMNS`, a row for each run."""
    before: float | None = None
    for measurement in measured:
        change = f"{measurement.cycles / before - 1:+.1%}" if before else ""
        shares = units.percent(measurement.utilization), units.percent(measurement.dram_share)
        traffic = units.size(measurement.dram_bytes)
        yield [
            measurement.name,
            f"{measurement.cycles:,.0f}",
            change,
            *shares,
            str(measurement.launches),
            traffic,
        ]
        before = measurement.cycles
