"""What each pass of a pipeline does to the time that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .chip import Chip
from .compiler.check import check
from .compiler.graph import Graph
from .compiler.ops import work
from .compiler.passes import Fold, Legalise, Pass, Precision, Prune, Quantise
from .compiler.passes.precision import own_dtype
from .compiler.pipeline import choose_format, compile_lowered
from .engine.run import report
from .types import dtype

NEEDED = (Legalise, Fold, Precision, Quantise, Prune)  # choose the number format, or tidy: always run
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """A run with the passes up to the one named.

    `utilization` is the imported model's multiply-adds over what the matrix units could do in the time: work
    that a pass leaves out, as the masked half of causal attention, still counts.
    """

    name: str
    cycles: float
    seconds: float
    utilization: float
    launches: int
    dram_bytes: float


def measure(
    graph: Graph,
    pipeline: Sequence[Pass],
    chip: Chip,
    wanted: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Measured]:
    """Yield the time of a graph with only the passes that are always run, then with one pass more each time.

    The passes in `NEEDED` are always run: without them there is another number format, which no time can be
    compared with.
    """
    form = choose_format(own_dtype(graph), chip, wanted)
    macs = sum(work(graph, node).macs for node in graph.nodes)
    optional = [i for i, step in enumerate(pipeline) if not isinstance(step, NEEDED)]
    for count in range(len(optional) + 1):
        if progress is not None:
            progress("measure", count, len(optional) + 1)
        left_out = set(optional[count:])
        name = pipeline[optional[count - 1]].name if count else "none"
        made = graph
        for index, step in enumerate(pipeline):
            made = made if index in left_out else check(step(made), step.name)
        program = compile_lowered(made, chip, dtype=form.name)
        done = report(program, chip)
        traffic = done.traffic.dram_read_bytes + done.traffic.dram_write_bytes
        peak = chip.peak_macs_per_cycle(dtype(form.name)) * done.cycles
        yield Measured(name, done.cycles, done.seconds, macs / peak, len(program.launches), traffic)
