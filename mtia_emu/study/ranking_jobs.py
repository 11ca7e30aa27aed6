"""What the jobs of a ranking model take, from runs of its graph: for `mtia-emu rank`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.pipeline import DEFAULTS

from ..errors import UserError
from ..options import Options
from ..results.machine import Machine
from ..results.report import Report
from ..serving.ranking import JobTimes, RankingJobs
from ..sources import open_model
from ..sums import add_up
from .accelerator import GraphModel
from .lookups import example_lookups
from .step_anchors import memory_bytes

BAGS = "embedding_bags"


def ranking_jobs(
    name: str, machine: Machine, candidates: Sequence[int], options: Options = DEFAULTS
) -> RankingJobs:
    """Return the times of a recommender's jobs on one chip, each batch size compiled and run in steady state.

    Look-ups of all tables are the remote work, all else is the merge job. Raises `UserError` for a model
    without embedding bags, or without a dimension `batch`.
    """
    each = [_report(name, machine, size, options) for size in candidates]
    remote, merge = [], []
    for report, _ in each:
        bags = add_up(x.seconds for x in report.layers if x.op == BAGS)
        if not bags:
            raise UserError(f"{name}: no layer looks rows up (right: a recommender, as zoo:dlrm-mc2)")
        remote.append(bags)
        merge.append(max(report.seconds - bags, 0.0))
    sizes = tuple(candidates)
    joules = JobTimes(sizes, _rising(report.joules for report, _ in each))
    remote_s, merge_s = JobTimes(sizes, _rising(remote)), JobTimes(sizes, _rising(merge))
    return RankingJobs(remote_s, merge_s, joules, each[0][1], memory_bytes(machine))


def _report(name: str, machine: Machine, size: int, options: Options) -> tuple[Report, int]:
    """Return the report of a batch, and the bytes of the model's weights."""
    with open_model(name, {"batch": size}) as source:
        graph = source.graph()
        work = GraphModel(
            graph, options, About(name, dims=source.dims), lookups=partial(example_lookups, source)
        )
        weights = sum(const.type.bytes for const in graph.consts.values())
        return machine.report(work), weights


def _rising(values: Iterable[float]) -> tuple[float, ...]:
    """Return values none of which is less than the one before: a larger batch is no faster."""
    out: list[float] = []
    for value in values:
        out.append(max(value, out[-1]) if out else value)
    return tuple(out)
