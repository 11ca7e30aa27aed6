"""Score training steps on GPUs: published rates and iteration times, and formulas of activations.

    python docs/score_training.py FOLDER [mpt|megatron|recompute|llmc|activations ...]

FOLDER has mpt_training_a100_40gb.csv (llm-foundry), megatron_2021_a100.csv (Narayanan et al.),
korthikanti_2022_recompute.csv and misc_training.csv. Nothing is fitted to them.

A step is what `mtia-emu train` makes of a GPT in bf16 with AdamW: its graph of one GPU is timed as the GPU
stands beside a chip, kernels launched on a stream, on a board in steady state. Two and four layers are timed,
the others are as many times their difference. What several GPUs add:

- FSDP gathers weights in bf16 for the way there and again for the way back, and scatters gradients, layer by
  layer, beside kernels: a phase takes the longer of both. The optimiser has one part in as many as GPUs.
- `tp` splits the graph as `--parallel tp=N` does; its exchanges stand between kernels. Sequence parallelism
  (`sp`) is left out: its exchanges move as many bytes, its norms and residuals are a `tp`-th.
- A pipeline of p stages in v parts each runs m micro-batches in (m + (p - 1) / v) times a stage; the stage
  with the loss is the slowest. Sends are left out.
- Full recomputation runs the layers' way there once more, as torch.utils.checkpoint of a block does; that of
  `--keep 0`, which keeps the residual within a layer and leaves out products that nobody reads, is printed
  beside it.
- Data parallelism sums gradients in 16 bits behind the way back, a ring over each GPU's own NIC.
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from markdown_table import table
from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.gradients.marks import BACKWARD, OPTIMISER
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.recompute import BALANCE, recompute
from mtia_emu.compiler.gradients.step import Recipe, TrainingStep, training_step
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.step import split_step

from mtia_emu import zoo
from mtia_emu.gpu import load_gpu
from mtia_emu.options import Mode, Options
from mtia_emu.study.accelerator import GraphModel
from mtia_emu.study.partition import Exchanges, Partition, exchanged_bytes
from mtia_emu.system.collectives import Collective, timed
from mtia_emu.system.load import load_system
from mtia_emu.zoo.gpt import Gpt

DOCS = Path(__file__).resolve().parent
PAGE, SHARED = DOCS / "accuracy-training.md", DOCS.parents[1] / "shared" / "reference" / "training"
PEAK = 312e12  # FLOP/s of an A100 in bf16, by which all of these sources count
SERVER = "dgx-a100"
NIC = 25e9 * 0.9  # bytes/s of a GPU's own NIC, 200 Gb/s; nine tenths of them estimated to be used
SIZES = {  # of MPT by name: hidden, layers, heads (llm-foundry, scripts/train/yamls/pretrain)
    "125m": (768, 12, 12),
    "350m": (1024, 24, 16),
    "760m": (1536, 24, 12),
    "1b": (2048, 24, 16),
    "3b": (2560, 32, 20),
    "7b": (4096, 32, 32),
    "13b": (5120, 40, 40),
}
LLMC = {"gpt2-124m llm.c step": (768, 12, 12), "gpt2-350m llm.c step": (1024, 24, 16)}
MICRO = (1, 2, 4, 8)  # sequences of a micro-batch that are tried where none is published
HALF, WHOLE = 2, 4  # layers that are timed
KEEP_ALL, KEEP_NONE = math.inf, 0.0


@dataclass(frozen=True)
class Phases:
    """Seconds of a GPU in each phase of a step, exchanges of `tp` among them."""

    forward: float
    backward: float
    optimizer: float

    def extrapolated(self, longer: Phases, layers: int) -> Phases:
        """Return the phases of so many layers, given those of HALF (here) and WHOLE."""
        share = (layers - HALF) / (WHOLE - HALF)
        names = ("forward", "backward", "optimizer")
        ends = [(getattr(self, n), getattr(longer, n)) for n in names]
        return Phases(*(a + share * (b - a) for a, b in ends))

    def again(self, head: Phases) -> Phases:
        """Return the phases with the layers' way there, without `head`, once more on the way back."""
        return replace(self, backward=self.backward + self.forward - head.forward)


def gpt(hidden: int, heads: int, vocab: int, context: int, packed: bool = True) -> Gpt:
    """Return a GPT of some sizes; how many layers it has is said later."""
    return Gpt(
        source="docs/score_training.py", layers=1, hidden=hidden, heads=heads, kv_heads=heads,
        head_dim=hidden // heads, ffn=4 * hidden, vocab=vocab, context=context, packed=packed,
    )  # fmt: skip


@cache
def step_of(model: Gpt, batch: int, keep: float) -> TrainingStep:
    """Return the step of a model over `batch` sequences as long as its context."""
    seq = model.context
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"batch": batch, "seq": seq, "past": 0, "scored": seq}
        graph, stored = load_trainable(zoo.write_model(model, "gpt", sizes, Path(folder)), {})
    recipe = Recipe("cross-entropy", optimiser("adamw"), precision="bf16", keep=keep)
    return training_step(graph, stored, recipe)


def split(step: TrainingStep, tp: int) -> Partition:
    """Return a step split over `tp` GPUs."""
    found = split_step(step, parse_parallel(f"tp={tp}"))
    return Partition(found.split, (found.stage,))


def phases(model: Gpt, layers: int, batch: int, keep: float, gpu: str, tp: int = 1) -> Phases:
    """Return what each phase of a step takes on a GPU."""
    each = [_phases(replace(model, layers=n), batch, keep, gpu, tp) for n in (HALF, WHOLE)]
    return each[0].extrapolated(each[1], layers)


@cache
def _phases(model: Gpt, batch: int, keep: float, gpu: str, tp: int) -> Phases:
    step, took = step_of(model, batch, keep), {"": 0.0, BACKWARD: 0.0, OPTIMISER: 0.0}
    graph = step.graph if tp == 1 else split(step, tp).graph(0, 0)
    given = GraphModel(graph, Options.of(dtype="bf16"), About("gpt", "gpt", {})).with_fused()
    assert given.fused is not None
    nodes = given.fused.by_name
    for layer in load_gpu(gpu).in_mode(Mode(launch="stream")).report(given).layers:
        took[_phase(nodes[layer.name].origin)] += layer.seconds
    on = Exchanges(load_system(SERVER), parse_parallel(f"tp={tp}"))
    for node in nodes.values():
        if "axes" in node.attrs and "size" in node.attrs:
            size = exchanged_bytes(node.op, nodes_bytes(given, node.inputs[0]), int(node.attrs["size"]))
            took[_phase(node.origin)] += on.time(0, node.op, node.attrs["axes"], size)[0].seconds
    return Phases(took[""], took[BACKWARD], took[OPTIMISER])


def nodes_bytes(model: GraphModel, value: str) -> int:
    """Return the bytes of a value of a model's graph."""
    assert model.fused is not None
    return model.fused.type_of(value).bytes


def _phase(origin: str) -> str:
    return next((mark for mark in (BACKWARD, OPTIMISER) if origin.endswith(mark)), "")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with comments."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@dataclass(frozen=True)
class Score:
    """A row: what it is, and what is published and computed."""

    what: str
    published: float
    here: float
    more: str = ""

    @property
    def error(self) -> float:
        """Return the difference, as a share of what is published."""
        return self.here / self.published - 1


def scored(unit: str, more: str, scores: list[Score]) -> str:
    """Return the rows as a table, and their errors together."""
    rows = [
        [s.what, f"{s.published:,.4g}", f"{s.here:,.4g}", f"{s.error:+.1%}", *([s.more] if more else [])]
        for s in scores
    ]
    errors = [s.error for s in scores]
    middle, each = median(errors), median(map(abs, errors))
    said = f"Median error {each:.1%}, bias {middle:+.1%}, {min(errors):+.1%} to {max(errors):+.1%}"
    head = ["row", f"published{unit}", "here", "error", *([more] if more else [])]
    return f"{table(head, rows)}\n\n{said}, of {len(errors)} rows."


def mpt(folder: Path) -> str:
    """Score MPT on eight A100 of 40 GB: tokens a second a GPU."""
    rows = rows_of(folder / "mpt_training_a100_40gb.csv")
    scores = [_mpt(row) for row in rows if row["gpus"] == "8" and row["model"] in SIZES]
    return scored(", tokens/s a GPU", "MFU and HFU here", scores)


def _mpt(row: dict[str, str]) -> Score:
    hidden, layers, heads = SIZES[row["model"]]
    seq, batch, count = int(row["seq_len"]), int(row["microbatch"]), int(row["grad_accum"])
    again = row["activation_checkpointing"] == "True"
    model, n = gpt(hidden, heads, 50368, seq), int(row["params"])
    each = phases(model, layers, batch, KEEP_ALL, "a100-sxm-40gb")
    each = each.again(phases(model, 0, batch, KEEP_ALL, "a100-sxm-40gb")) if again else each
    gather, scatter = (exchange(kind, 2 * n / layers) * layers for kind in ("all_gather", "reduce_scatter"))
    micro = max(each.forward, gather) + max(each.backward, gather + scatter)
    rate = batch * seq * count / (count * micro + each.optimizer / 8)
    flops = 6 * n + 12 * layers * hidden * seq  # a token; llm-foundry counts hidden keys too
    mfu = rate * flops / PEAK
    more = f"{mfu:.1%}, {mfu * (4 / 3 if again else 1):.1%}"
    kept = "again" if again else "kept"
    return Score(
        f"{row['model']}, {seq}, {batch} x {count}, {kept}", float(row["tokens_per_s_per_gpu"]), rate, more
    )


@cache
def exchange(kind: str, size: float) -> float:
    """Return the seconds of a collective of eight GPUs."""
    return timed(load_system(SERVER), Collective(kind, size, tuple(range(8)))).seconds


def recomputation(folder: Path) -> str:
    """Score iterations with full and selective recomputation, and what full recomputation costs."""
    rows = rows_of(folder / "korthikanti_2022_recompute.csv")
    scores = [_korthikanti(row) for row in rows if row["quantity"] == "iteration"]
    costs = [
        Score(a.what.partition(",")[0], a.published / b.published - 1, a.here / b.here - 1)
        for a, b in zip(scores[::2], scores[1::2], strict=True)
    ]
    adds = scored(", share of the time", "", costs)
    return (
        f"{scored(', s', 'with `--keep 0`', scores)}\n\nWhat full recomputation adds to selective:\n\n{adds}"
    )


def _korthikanti(row: dict[str, str]) -> Score:
    hidden, heads, layers = int(row["hidden"]), int(row["heads"]), int(row["layers"])
    shape = Shape(layers, int(row["tp"]), int(row["pp"]), int(row["interleave"]), 1, int(row["batch"]))
    full, micro = row["setting"].startswith("full"), int(row["microbatch"])
    model = gpt(hidden, heads, 51200, 2048, packed=False)
    here = iteration(model, shape, micro, full)
    own = f"{iteration(model, shape, micro, False, KEEP_NONE):.4g}" if full else ""
    return Score(f"{row['model']}, {row['setting']}", float(row["value"]), here, own)


@dataclass(frozen=True)
class Shape:
    """How GPUs share a step: layers, `tp`, `pp` stages in `parts` each, `dp`, sequences of the batch."""

    layers: int
    tp: int
    pp: int
    parts: int
    dp: int
    batch: int


def iteration(model: Gpt, s: Shape, micro: int, checkpointed: bool, keep: float = KEEP_ALL) -> float:
    """Return the seconds of a step of a pipeline of GPUs; `checkpointed` ones make each layer again."""
    count = s.batch // s.dp // micro
    plain, head = (phases(model, n, micro, keep, "a100-sxm-80gb", s.tp) for n in (s.layers // s.pp, 0))
    plain = plain.again(head) if checkpointed else plain
    whole = plain.forward + plain.backward
    bare = whole - head.forward - head.backward if s.pp > 1 else whole
    weights = 12 * model.hidden**2 * s.layers / s.tp / s.pp
    ring = 2 * (s.dp - 1) / s.dp * 2 * weights / NIC
    return count * whole + (s.pp - 1) / s.parts * bare + plain.optimizer + ring


def megatron(folder: Path) -> str:
    """Score Megatron's table of 2021; its micro-batches are not in it: the fastest of a few stands."""
    scores = []
    for row in rows_of(folder / "megatron_2021_a100.csv"):
        hidden, layers = int(row["hidden"]), int(row["layers"])
        tp, pp, gpus, batch = (int(row[name]) for name in ("tp", "pp", "gpus", "batch"))
        model = gpt(hidden, int(row["heads"]), 51200, 2048, packed=False)
        shape = Shape(layers, tp, pp, 1, gpus // tp // pp, batch)
        found = {m: iteration(model, shape, m, True) for m in MICRO if batch // shape.dp % m == 0}
        best = min(found, key=lambda m: found[m])
        more = 1 + 2048 / (6 * hidden) + 51200 / (16 * layers * hidden)
        published_s = (
            96 * batch * 2048 * layers * hidden**2 * more / gpus / float(row["tflops_per_gpu"]) / 1e12
        )
        scores.append(
            Score(f"{row['params_b']}B, tp={tp} pp={pp} dp={shape.dp}", published_s, found[best], str(best))
        )
    return scored(", s", "micro-batch", scores)


def llmc(folder: Path) -> str:
    """Score llm.c's GPT-2 on eight A100 of 80 GB, half a million tokens a step."""
    scores = []
    for row in rows_of(folder / "misc_training.csv"):
        if row["name"] in LLMC:
            hidden, layers, heads = LLMC[row["name"]]
            each = phases(gpt(hidden, heads, 50304, 1024), layers, 64, KEEP_ALL, "a100-sxm-80gb")
            here = each.forward + each.backward + each.optimizer / 8
            scores.append(Score(row["name"].removesuffix(" llm.c step"), float(row["value"]), here * 1e3))
    return scored(", ms", "", scores)


def activations(_: Path) -> str:
    """Hold the bytes kept for the way back, a layer, to the published formulas."""
    return table(["tp", "kept", "published formula", "is", "less masks of dropout", "here"], kept_rows())


def kept_rows() -> Iterator[list[str]]:
    """Yield a row for each way to keep activations: bytes over s b h."""
    model = gpt(1024, 16, 512, 512, packed=False)
    for t in (1, 4):
        published, here = 10 + 24 / t, kept(model, t, KEEP_ALL)
        yield [str(t), "all but scores", "10 + 24 / t", f"{published:g}", f"{published - 2:g}", f"{here:g}"]
    for t in (1, 4):
        yield [str(t), "as little as `--keep 0` does", "2", "2", "2", f"{kept(model, t, KEEP_NONE):g}"]


def kept(model: Gpt, tp: int, keep: float, batch: int = 2) -> float:
    """Return the bytes that a GPU keeps of one layer, over s b h."""
    sizes = []
    for layers in (HALF, WHOLE):
        step = step_of(replace(model, layers=layers), batch, keep)
        graph = step.graph if tp == 1 else split(step, tp).graph(0, 0)
        sizes.append(recompute(graph, math.inf, BALANCE)[1].whole)
    return (sizes[1] - sizes[0]) / (WHOLE - HALF) / (model.context * batch * model.hidden)


PARTS = {
    "mpt": mpt,
    "megatron": megatron,
    "recompute": recomputation,
    "llmc": llmc,
    "activations": activations,
}


def section(name: str) -> Callable[[], str]:
    """Return what makes a table for the page, and leaves the page's where the data are not beside it."""

    def made() -> str:
        if SHARED.is_dir():
            return PARTS[name](SHARED)
        text = PAGE.read_text(encoding="utf-8")
        return text.partition(f"<!-- generated: training-{name} -->")[2].partition("<!-- end -->")[0].strip()

    return made


SECTIONS = {f"training-{name}": section(name) for name in PARTS}


def main() -> None:
    """Print the tables that are asked for, all without a name."""
    if len(sys.argv) < 2 or set(sys.argv[2:]) - set(PARTS):
        sys.exit(__doc__)
    for name in sys.argv[2:] or PARTS:
        print(f"\n### {name}\n\n{PARTS[name](Path(sys.argv[1]))}", flush=True)


if __name__ == "__main__":
    main()
