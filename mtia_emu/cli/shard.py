"""The command `mtia-emu shard`: where the embedding tables of a recommender lie on many chips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError, refuse_unknown
from . import options as o
from .collective import MANY, SYSTEM_SET, parse_settings, parse_size, written
from .output import console, say

if TYPE_CHECKING:
    from ..system.planner import ShardPlan
    from ..system.tables import EmbeddingTable

KINDS = ("table", "column", "row", "copied")
ZOO = "zoo:"


@click.command(short_help="Place embedding tables on the chips of a system.")
@click.argument("tables", metavar="TABLES")
@click.option("--system", "name", metavar="NAME|FILE.toml", required=True, help="The system, or NAME*N.")
@click.option("--batch", type=click.IntRange(1, 1 << 24), default=4096, show_default=True,
              help="Samples of all ranks together.")  # fmt: skip
@click.option(
    "--skew", metavar="LAW", help="How rows of a zoo model are asked for: uniform, zipf:A, histogram:NAME."
)
@click.option("--hot-bytes", metavar="SIZE", default="0", show_default=True,
              help="Memory of each chip for copies of the rows that are asked for most.")  # fmt: skip
@click.option("--shard", "kinds", metavar="LIST", default=",".join(KINDS), show_default=True,
              help="Ways in which tables may lie.")  # fmt: skip
@click.option("--memory-share", type=click.FloatRange(0.01, 1.0), default=0.8, show_default=True,
              help="Share of each chip's DRAM for tables.")  # fmt: skip
@click.option("--batches", type=click.IntRange(0, 1000), default=8, show_default=True,
              help="Batches of drawn look-ups, to see the slowest chip of each.")  # fmt: skip
@o.options(o.SEED, SYSTEM_SET, MANY, o.JSON)
def shard(tables: str, name: str, json_file: str | None, **given: Any) -> None:
    """Place embedding tables, TABLES, on the chips of a system, and say what it costs.

    TABLES is a .toml file or zoo:NAME. A table lies whole on one chip, cut into columns or rows, or copied
    on all. What is least: the exchange of indices, the look-ups of the slowest chip, the exchange of pooled
    rows. Rows are read from DRAM, as if no cache held any. `pip install 'mtia-emu[plan]'` brings the
    solver.

    \b
    Examples:
      mtia-emu shard zoo:dlrm-mlperf --system mtia-2i-server --skew zipf:1.05
      mtia-emu shard zoo:dlrm-mc2 --system hgx-h200 --batch 16384 --shard table,row
      mtia-emu shard zoo:dlrm-mc2 --system mtia-300-rack --skew zipf:1.05 --hot-bytes 1GB
    """
    from ..system.load import load_system
    from ..system.planner import plan
    from ..system.sharding import ShardJob
    from ..system.tables import with_hot_rows

    system = load_system(name, parse_settings(given["settings"]), consent=given["many"])
    budget = parse_size(given["hot_bytes"], "--hot-bytes")
    held = with_hot_rows(read_tables(tables, given["skew"]), budget)
    found = plan(ShardJob(system, held, given["batch"], given["memory_share"]), parse_kinds(given["kinds"]))
    drawn = _drawn(found, given["batches"], given["seed"])
    if not written(as_json(found, drawn), json_file):
        _print(found, drawn)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of placement of a list with commas."""
    kinds = tuple(part.strip() for part in text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise refuse_unknown("kind of --shard", kind[:40], KINDS)
    return kinds


def read_tables(text: str, skew: str | None) -> tuple[EmbeddingTable, ...]:
    """Return the tables of a file or of a recommender of the zoo."""
    from ..system.tables import EmbeddingTable, checked, load_tables

    if not text.startswith(ZOO):
        if skew is not None:
            raise UserError(f"--skew {skew!r}: tables of a file say their own (right: skew = '{skew}' there)")
        return load_tables(text)
    from ..zoo.models import MODELS

    model = MODELS.get(text[len(ZOO) :])
    rows = getattr(model, "rows", None)
    if not isinstance(rows, tuple):
        able = [f"{ZOO}{name}" for name, m in MODELS.items() if isinstance(getattr(m, "rows", None), tuple)]
        raise refuse_unknown("recommender", text[:60], able)
    dims = getattr(model, "dims", None) or (getattr(model, "dim"),) * len(rows)  # noqa: B009
    pooling = getattr(model, "pooling")  # noqa: B009
    each = pooling if isinstance(pooling, tuple) else (pooling,) * len(rows)
    kinds: dict[tuple[int, int, float], int] = {}
    for kind in zip(rows, dims, each, strict=True):
        kinds[kind] = kinds.get(kind, 0) + 1
    made = [
        EmbeddingTable(f"t{i}", count, *kind, skew=skew or "uniform")
        for i, (kind, count) in enumerate(kinds.items())
    ]
    return checked(made, text)


def _drawn(found: ShardPlan, batches: int, seed: int) -> list[float]:
    from ..system.sharding import slowest_s

    return [float(x) for x in slowest_s(found.job, found.placements, batches, seed)] if batches else []


def as_json(found: ShardPlan, drawn: list[float]) -> dict[str, object]:
    """Return a plan as plain data: each placement, what each rank holds and takes, the parts of the time."""
    c, job = found.cost, found.job
    return {
        "schema": "mtia-emu.shard.v1",
        "system": job.system.name, "batch": job.batch, "solver": found.solver, "seconds": c.seconds,
        "least_s": found.least_s, "index_s": c.index_s, "lookup_s": c.lookup_s.tolist(),
        "pooled_s": c.pooled_s, "sums_s": c.sums_s, "exchanged_j": c.exchanged_j,
        "memory_bytes": c.memory_bytes.tolist(), "drawn_slowest_s": drawn,
        "placements": [
            {"table": job.tables[p.table].name, "kind": p.kind, "rank": p.rank, "count": p.count,
             "parts": p.parts}
            for p in found.placements
        ],
    }  # fmt: skip


def _print(found: ShardPlan, drawn: list[float]) -> None:
    from ..view import units
    from ..view.terminal import print_table

    job, c = found.job, found.cost
    total = sum(t.count * t.bytes for t in job.tables)
    title = f"{units.size(total)} of tables on {job.system.name}, {job.batch:,} samples, by {found.solver}"
    rows = [
        [t.name, f"{t.count:,}", units.size(t.bytes), f"{t.pooling:g}", _how(found, i), f"{t.hot_share:.1%}"]
        for i, t in enumerate(job.tables)
    ]
    head = ["tables", "number", "each", "pooling", "how they lie", "hot"]
    print_table(title, head, rows, console())
    parts = [
        ["indices to the rows", units.seconds(c.index_s), ""],
        ["look-ups, slowest chip", units.seconds(float(c.lookup_s.max())),
         f"{c.lookup_s.max() / max(c.lookup_s.mean(), 1e-30):.2f} of the mean"],
        ["pooled rows to the samples", units.seconds(c.pooled_s), ""],
        ["sums of tables in rows", units.seconds(c.sums_s), ""],
        ["together", units.seconds(c.seconds), f"{job.batch / max(c.seconds, 1e-30):,.0f} samples/s"],
        ["no placement is below", units.seconds(found.least_s) if found.least_s else "not known", ""],
        ["memory, fullest chip", units.size(float(c.memory_bytes.max())),
         f"{c.memory_bytes.max() / max(e.dram_bytes for e in job.system.endpoints):.0%} of it"],
        ["links and switches", units.joules(c.exchanged_j), "a batch"],
    ]  # fmt: skip
    if drawn:
        worst = f"{units.seconds(min(drawn))} to {units.seconds(max(drawn))}"
        parts.insert(2, ["the same, drawn batches", worst, f"{len(drawn)} of them"])
    print_table("a batch", ["", "", ""], parts, console())
    if found.solver != "HiGHS" and not found.least_s:
        say("note: no solver; pip install 'mtia-emu[plan]' brings one")


def _how(found: ShardPlan, table: int) -> str:
    """Return in words how many tables of a group lie whole, in columns, in rows, copied."""
    words = {"table": "whole", "row": "in rows", "copied": "copied"}
    counts: dict[str, float] = {}
    for p in found.placements:
        if p.table == table:
            what = words.get(p.kind, f"in {p.parts} columns")
            counts[what] = counts.get(what, 0.0) + p.count / p.parts
    return ", ".join(f"{count:,.0f} {what}" for what, count in counts.items())
