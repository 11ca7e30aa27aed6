"""Fit the constants of the GPU files on half of the measured groups; write them with their origin.

    make fit-gpu            # every GPU that has tables
    python docs/accuracy/gpu_fit.py h100-sxm --check    # print, write nothing

The other half of the groups is scored by `make accuracy`. The same data and seed give the same values.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accuracy import gpu_bags, gpu_models, gpu_second, tables
from accuracy.gpu_small import NARROW, NORMS, rows_seconds, sustained_rows, vidur
from accuracy.gpu_small import POWER as POWER_TABLES
from accuracy.score import SEED, halves, score
from mtia_emu.gpu import Facts, gpu_names, load_gpu

Vector = np.ndarray
SAMPLE = 6000  # rows of each dtype that are fitted, drawn by the seed from the fitting half
SOFT = 0.05  # errors beyond this count less: a library's rare bad choice is no property of the GPU
BOUNDS: dict[str, tuple[float, float]] = {
    "matmul_latency_s": (1e-7, 5e-6), "gemv_latency_s": (1e-7, 5e-6), "tile_s": (1e-8, 1e-5),
    "k_step_s": (5e-9, 1e-6), "wave_s": (1e-8, 2e-5), "split_s": (3e-7, 8e-6),
    "reduce_bytes_per_s": (5e11, 5e13), "overlap": (1.5, 12.0), "matmul_dram_efficiency": (0.5, 0.98),
    "l2_efficiency": (0.3, 2.0), "l2_usable": (0.2, 1.0), "heat_s": (1e-4, 1.0), "quantise_s": (1e-6, 2e-5),
    "quantise_efficiency": (0.2, 1.0), "quantise_fp4_s": (5e-7, 2e-5),
    "rates.fp8_e4m3.k_step_s": (5e-9, 5e-6),
    "rates.tf32.efficiency": (0.4, 1.0), "rates.tf32.k_step_s": (5e-9, 5e-6),
    "rates.bf16.efficiency": (0.5, 1.0), "rates.fp8_e4m3.efficiency": (0.4, 1.0),
    "rates.fp4.efficiency": (0.3, 1.0), "rates.fp4.k_step_s": (5e-9, 5e-6),
    "attention.prefill_s": (2e-6, 3e-5), "attention.decode_s": (2e-6, 3e-5),
    "attention.block_s": (1e-7, 1e-5),
    "attention.query_block_s": (1e-8, 1e-5), "attention.split_s": (1e-8, 2e-5),
    "attention.sm_bytes_per_s": (3e9, 2e11), "attention.efficiency": (0.2, 1.0),
    "attention.prefill_dram_efficiency": (0.3, 0.98), "attention.decode_dram_efficiency": (0.5, 0.98),
    "links.efficiency": (0.05, 1.0), "links.latency_s": (1e-6, 3e-5), "links.hop_s": (1e-7, 1e-5),
    "links.small_bytes_per_s": (5e8, 4e11), "links.large_s": (1e-7, 2e-4), "row_step_s": (5e-8, 3e-6),
    "narrow_step_s": (5e-8, 3e-6), "narrow_efficiency": (0.1, 1.0),
    "sustained_heat": (1.0, 3.0), "bag_clocks": (1.0, 1e3), "lookup_clocks": (1.0, 1e3),
    "element_clocks": (1e-3, 10.0), "links.direct.start_s": (5e-7, 3e-5),
    "links.direct.peer_s": (1e-9, 1e-5), "links.direct.two_shot_s": (1e-7, 1e-4),
    "links.direct.efficiency": (0.1, 1.0),
}  # fmt: skip
START: dict[str, float] = {
    "matmul_latency_s": 1.2e-6, "gemv_latency_s": 2.8e-6, "tile_s": 1e-6, "k_step_s": 1e-7, "wave_s": 5e-7,
    "split_s": 2.5e-6, "reduce_bytes_per_s": 5e12, "overlap": 3.0, "matmul_dram_efficiency": 0.8,
    "l2_efficiency": 1.0, "l2_usable": 0.5, "heat_s": 5e-3, "quantise_s": 1e-5,
    "quantise_efficiency": 0.7, "quantise_fp4_s": 2e-6, "rates.fp8_e4m3.k_step_s": 1e-7,
    "rates.tf32.efficiency": 0.85, "rates.tf32.k_step_s": 1e-7,
    "rates.bf16.efficiency": 0.9,
    "rates.fp8_e4m3.efficiency": 0.75, "rates.fp4.efficiency": 0.7, "rates.fp4.k_step_s": 3e-7,
    "attention.prefill_s": 1.1e-5, "attention.decode_s": 1.1e-5,
    "attention.block_s": 3.5e-6, "attention.query_block_s": 1e-6, "attention.split_s": 2e-6,
    "attention.sm_bytes_per_s": 2.5e10, "attention.efficiency": 0.6, "attention.prefill_dram_efficiency": 0.8,
    "attention.decode_dram_efficiency": 0.85, "links.efficiency": 0.8, "links.latency_s": 5e-6,
    "links.hop_s": 1e-6, "links.small_bytes_per_s": 1e11, "links.large_s": 1.5e-5, "row_step_s": 5e-7,
    "narrow_step_s": 5e-7, "narrow_efficiency": 0.6,
    "sustained_heat": 1.4, "bag_clocks": 20.0, "lookup_clocks": 10.0, "element_clocks": 0.1,
    "links.direct.start_s": 3e-6, "links.direct.peer_s": 1e-7, "links.direct.two_shot_s": 3e-6,
    "links.direct.efficiency": 0.7,
}  # fmt: skip
"""Where every fit starts, the same for all GPUs, so that a rerun gives the same values."""

MATMUL = ("matmul_latency_s", "tile_s", "k_step_s", "wave_s", "split_s", "reduce_bytes_per_s", "overlap",
          "matmul_dram_efficiency", "l2_efficiency", "l2_usable", "heat_s")  # fmt: skip
ATTENTION = tuple(k for k in BOUNDS if k.startswith("attention."))
QUANTISE = ("quantise_s", "quantise_efficiency")
NARROW_KEYS = ("narrow_step_s", "narrow_efficiency")
BAGS = ("bag_clocks", "lookup_clocks", "element_clocks")
LINKS = tuple(k for k in BOUNDS if k.startswith("links.") and "direct" not in k)
DIRECT = tuple(k for k in BOUNDS if k.startswith("links.direct."))


@dataclass(frozen=True)
class Task:
    """What is fitted together: dotted keys, log(modelled / measured) of the rows, and their source."""

    keys: tuple[str, ...]
    residuals: Callable[[Facts], Vector]
    source: str


def get(facts: Facts, key: str) -> float:
    """Return a value by its dotted key."""
    value: Any = facts
    for part in key.split("."):
        value = getattr(value, part)
    return float(value)


def put(facts: Facts, values: Mapping[str, float]) -> Facts:
    """Return the facts with values put at dotted keys."""
    for key, value in values.items():
        facts = _with(facts, key.split("."), value)
    return facts


def _with(model: Any, path: Sequence[str], value: float) -> Any:
    inner = value if len(path) == 1 else _with(getattr(model, path[0]), path[1:], value)
    return model.model_copy(update={path[0]: inner})


def fitting_rows(name: str, dtype: str) -> Any:
    """Return the sample of a dtype's linear layers that is fitted."""
    rows = tables.gemm(name, dtype)
    rows = rows[halves(list(zip(rows.n, rows.k, strict=True)))]
    return rows.sample(min(SAMPLE, len(rows)), random_state=SEED)


def gemm_task(name: str, facts: Facts, dtypes: Sequence[str], keys: Sequence[str]) -> Task:
    """Return the fit of linear layers of the dtypes, with each one's efficiency beside `keys`."""
    parts = [(d, fitting_rows(name, d)) for d in dtypes]
    wanted = [*keys, *(f"rates.{d}.efficiency" for d, _ in parts)]

    def residuals(at: Facts) -> Vector:
        each = [np.log(gpu_models.layer_seconds(at, d, r) / r.seconds.to_numpy()) for d, r in parts]
        return np.concatenate(each)

    runtime = f"trtllm {tables.GEMM[name]['trtllm']}"
    return Task(tuple(wanted), residuals, f"{runtime} layers, {', '.join(dtypes)}, half of the (n, k) pairs")


def gemm_tasks(name: str, facts: Facts) -> list[Task]:
    """Return the fits of linear layers: all constants on 16 bits, then what only 8 and 4 bits have."""
    gemv = () if facts.gemv_latency_s is None else ("gemv_latency_s",)
    sixteen, heat = gemm_task(name, facts, ("bf16",), [*MATMUL, *gemv]), heat_task(name)
    # how much a long burst heats a board and how much a steady state does hang together: once more each
    found = [sixteen] if heat is None else [sixteen, heat, sixteen, heat]
    if facts.rates.fp8_e4m3 is not None:
        found.append(gemm_task(name, facts, ("fp8_e4m3",), [*QUANTISE, "rates.fp8_e4m3.k_step_s"]))
    if facts.rates.fp4 is not None:
        found.append(gemm_task(name, facts, ("fp4",), ["quantise_fp4_s", "rates.fp4.k_step_s"]))
    return found


def attention_task(name: str) -> Task:
    """Return the fit of prefill and decode attention on half of the head layouts."""
    parts = []
    for phase in ("context", "generation"):
        rows = tables.attention(name, phase)
        rows = rows[halves(list(zip(rows.num_heads, rows.num_key_value_heads, strict=True)))]
        parts.append((phase, rows.sample(min(SAMPLE, len(rows)), random_state=SEED)))

    def residuals(at: Facts) -> Vector:
        each = [np.log(gpu_models.attention_seconds(at, r, p) / r.seconds.to_numpy()) for p, r in parts]
        return np.concatenate(each)

    return Task(
        ATTENTION, residuals, f"{' '.join(tables.ATTENTION[name])} attention, half of the head layouts"
    )


def bags_task() -> Task | None:
    """Return the fit of embedding bags on half of the published rows."""
    rows = gpu_bags.bags()
    if rows is None:
        return None
    rows = rows[gpu_bags.chosen(rows)]

    def residuals(facts: Facts) -> Vector:
        return np.log(gpu_bags.bag_seconds(facts, rows) / rows.seconds.to_numpy())

    return Task(BAGS, residuals, "ISCA 2023 fig. 12, A100 rows, 64 tables of int8, half of the rows")


def tf32_task() -> Task:
    """Return the fit of TF32 beside bf16 on half of the shapes that OpenXLA published of H100."""
    keys = ("rates.tf32.efficiency", "rates.tf32.k_step_s")
    text = "OpenXLA, what fp32 (as TF32) takes over bf16, half of the shapes"
    return Task(keys, lambda at: np.log(gpu_second.tf32_over_bf16(at)), text)


def links_task(name: str) -> Task:
    """Return the fit of collectives on half of the pairs of operation and message size."""
    rows = tables.collectives(name)
    rows = rows[halves(list(zip(rows.op_name, rows.message_size, strict=True)))]

    def residuals(at: Facts) -> Vector:
        return np.log(gpu_models.nccl_seconds(at, rows) / rows.seconds.to_numpy())

    return Task(LINKS, residuals, f"NCCL {tables.NCCL[name]}, half of the operations and sizes")


def direct_task(name: str) -> Task:
    """Return the fit of a serving runtime's all-reduces on half of the message sizes."""
    rows = tables.direct(name, "trtllm")
    rows = rows[halves(list(rows.message_size))]

    def residuals(at: Facts) -> Vector:
        return np.log(gpu_models.reduce_seconds(at, rows) / rows.seconds.to_numpy())

    return Task(DIRECT, residuals, f"trtllm {tables.DIRECT[name]['trtllm']} all-reduce, half of the sizes")


def row_task(name: str, ops: Sequence[str], keys: Sequence[str], what: str) -> Task | None:
    """Return the fit of row kernels on half of the row counts; None where the reference folder is absent."""
    rows = vidur(name, tuple(ops))
    if rows is None:
        return None
    rows = rows[halves(list(rows.M))]
    return Task(
        tuple(keys),
        lambda at: np.log(rows_seconds(at, rows) / rows.latency_s.to_numpy()),
        f"Vidur {what}, half of the row counts",
    )


def heat_task(name: str) -> Task | None:
    """Return the fit of sustained runs on half of the (n, k) pairs; None where the folder is absent."""
    rows = sustained_rows(name, "bfloat16")
    if rows is None:
        return None
    rows = rows[halves(list(zip(rows.n, rows.k, strict=True)))]

    def residuals(at: Facts) -> Vector:
        modelled = gpu_models.layer_seconds(at, "bf16", rows, True)
        return np.log(modelled / rows.seconds.to_numpy())

    return Task(("sustained_heat",), residuals, "vllm 0.22.0 sustained layers, half of the (n, k) pairs")


def fit(facts: Facts, task: Task) -> dict[str, float]:
    """Return the values that make the task's residuals small, in four digits."""
    from scipy.optimize import least_squares

    low, high = (np.log([BOUNDS[k][i] for k in task.keys]) for i in (0, 1))
    start = np.log([START[k] for k in task.keys])
    done = least_squares(
        lambda x: task.residuals(put(facts, dict(zip(task.keys, np.exp(x), strict=True)))),
        np.clip(start, low + 1e-3, high - 1e-3),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=SOFT,
        diff_step=0.02,
        max_nfev=30,
    )
    return {k: float(f"{x:.4g}") for k, x in zip(task.keys, np.exp(done.x), strict=True)}


def tasks(name: str, facts: Facts) -> list[Task]:
    """Return what can be fitted of a GPU."""
    found: list[Task | None] = list(gemm_tasks(name, facts))
    found += [attention_task(name)] if name in tables.ATTENTION else []
    found += [links_task(name), direct_task(name)] if name in tables.NCCL else []
    found += [tf32_task()] if name == "h100-sxm" else []
    found += [row_task(name, NORMS, ("row_step_s",), "layer norms")]
    found += [row_task(name, NARROW, NARROW_KEYS, "rotary and activation kernels")]
    return [t for t in found if t is not None]


def write(name: str, values: Mapping[str, float], comment: str) -> None:
    """Put values into a GPU's file, each with where it comes from beside it."""
    import tomlkit

    path = tables.ROOT / "mtia_emu" / "gpu" / "gpus" / f"{name}.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        table: Any = document
        *outer, last = key.split(".")
        for part in outer:
            table = table[part]
        item = tomlkit.item(value)
        item.comment(comment)
        item.trivia.comment_ws = "  "
        table[last] = item
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


RESIDUALS = "held-out rows, and the spread between public sources"
LENT = {
    "matmul": [*MATMUL, "rates.bf16.efficiency"], "attention": list(ATTENTION),
    "vector": ["row_step_s", *NARROW_KEYS],
}  # fmt: skip


def write_bands() -> None:
    """Put the error bands into every GPU's file: the wider, the more of its constants are borrowed."""
    from accuracy import gpu_bands as b
    from accuracy.gpu_scores import gpu

    gpu.cache_clear()  # the files have just been written
    kin, strangers = b.borrowed(LENT, b.KIN), b.borrowed(LENT, b.STRANGERS)
    own = {name: b.own(name) for name in tables.SYSTEMS}
    bag, watts = b.bag(), {name: b.joules(name) for name in POWER_TABLES}
    for name in gpu_names():
        other, doubt = NEAREST.get(name, name), kin if name in b.SAME else strangers
        for kind in LENT:
            donor = other if kind in own[other] else GAPS[other]["row_step_s"]
            parts = [own[donor][kind], *([doubt[kind]] if donor != name else [])]
            text = RESIDUALS if donor == name else f"as {donor}, with the doubt of what is borrowed"
            for which in (kind, "short_matmul") if kind == "matmul" else (kind,):
                _write_band(name, which, b.joined(*parts, b.spread(name, which)), text)
        if bag is not None:
            measured = name == gpu_bags.MEASURED
            parts = [bag] if measured else [bag, doubt["vector"], b.spread(name)]
            text = "held-out rows, 32 to 128 tables" if measured else f"as {gpu_bags.MEASURED}, borrowed"
            _write_band(name, "embedding_bag", b.joined(*parts), text)
        _write_joules(name, watts)


def _write_joules(name: str, watts: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Put the bands of joules into a GPU's file: an estimate of its power adds what two GPUs differ by."""
    from accuracy import gpu_bands as b

    mine = watts.get(name) or watts["h200-sxm"]
    for kind, ends in mine.items():
        if name in watts or name in SERVED_GPUS:
            _write_band(name, kind, ends, "sustained layers and served models")
        else:
            _write_band(name, kind, b.joined(ends, GUESSED_WATTS), "as h200-sxm; estimate: watts are guessed")


GUESSED_WATTS = (0.75, 1.33)
"""What guessed watts of a board may be off by. Estimate: the share of the TDP that active boards draw is 0.30
(B200) to 0.47 (H100) in what is measured, by which the H100's scaled watts would be off by a third."""
SERVED_GPUS = ("h100-sxm",)


def _write_band(name: str, kind: str, ends: tuple[float, float], source: str) -> None:
    from accuracy.gpu_bands import rounded

    low, high = rounded(ends)
    print(f"{name}: band of {kind}: {low:g} to {high:g}")
    values = {f"bands.{kind}.low": low, f"bands.{kind}.high": high}
    write(name, values, f"make fit-gpu: 80 % of measured / modelled, {source}")


NEAREST = {"a100-sxm-40gb": "a100-sxm-80gb", "v100": "a100-sxm-80gb", "h100-pcie": "h100-sxm",
           "mi300x": "h100-sxm"}  # fmt: skip
"""GPUs without tables of their own, and the one whose fitted constants they borrow."""

OWN = {
    "mi300x": ("l2_usable", "rates.tf32.efficiency", "rates.bf16.efficiency", "rates.fp8_e4m3.efficiency"),
    "v100": ("rates.bf16.efficiency",),
}
"""What such a GPU has a source of its own for, or lacks."""

POWER = ("sustained_heat",)
VECTOR = ("row_step_s", *NARROW_KEYS)
TF32 = ("rates.tf32.efficiency", "rates.tf32.k_step_s")
TF32_GPUS = ("h100-sxm", "h200-sxm", "b200", "h100-pcie", "mi300x")
"""GPUs with TF32 as H100 was measured; on the others it is as efficient as bf16."""
GAPS = {
    "a100-sxm-80gb": dict.fromkeys(POWER, "h200-sxm") | dict.fromkeys(QUANTISE, "h100-sxm"),
    "h100-sxm": dict.fromkeys(POWER, "h200-sxm"),
    "h200-sxm": dict.fromkeys((*VECTOR, *TF32), "h100-sxm"),
    "b200": dict.fromkeys((*VECTOR, *TF32), "h100-sxm"),
    "l40s": dict.fromkeys(VECTOR, "a100-sxm-80gb") | dict.fromkeys(POWER, "h200-sxm"),
}
"""What a GPU with tables has none for, and the GPU whose value stands in."""


def borrow(name: str, keys: Mapping[str, str]) -> None:
    """Put values of other GPUs into a GPU's file, saying whose they are."""
    for other in sorted(set(keys.values())):
        found: Facts = load_gpu(other)
        values = {k: get(found, k) for k, whose in keys.items() if whose == other}
        write(name, values, f"make fit-gpu: no table of its own, as {other}")


LIKE = {"tf32": "bf16", "fp16": "bf16", "int8": "fp8_e4m3"}
"""Dtypes without a table, and the one of the same tensor core whose efficiency stands in."""


def alike(name: str) -> None:
    """Put efficiency and step of a dtype's like where it has no table, on the GPUs that have tables."""
    facts: Facts = load_gpu(name)
    for dtype, other in LIKE.items():
        found = getattr(facts.rates, other)
        measured = dtype == "tf32" and name in TF32_GPUS
        if getattr(facts.rates, dtype) is not None and found is not None and not measured:
            each = {"efficiency": found.efficiency, "k_step_s": found.k_step_s}
            values = {f"rates.{dtype}.{key}": value for key, value in each.items() if value is not None}
            write(name, values, f"make fit-gpu: no table of its own, as {other}")


def all_of(name: str) -> dict[str, str]:
    """Return every fitted key of a GPU without tables, with whose value stands in."""
    other, facts = NEAREST[name], load_gpu(name)
    keys = [k for k in BOUNDS if "fp4" not in k and k not in (*BAGS, *OWN.get(name, ()))]
    keys = [k for k in keys if k != "gemv_latency_s" or facts.gemv_latency_s is not None]
    keys = [k for k in keys if k not in TF32 or name in TF32_GPUS]
    keys = [
        k for k in keys if k not in DIRECT or (facts.links is not None and facts.links.direct is not None)
    ]
    return {k: other for k in keys if not k.startswith("rates.") or getattr(facts.rates, k.split(".")[1])}


def fit_bags() -> None:
    """Fit embedding bags of the one GPU that rows are published of; all others borrow its constants."""
    task, name = bags_task(), gpu_bags.MEASURED
    if task is None:
        return
    write(name, fit(load_gpu(name), task), f"fitted by make fit-gpu: {task.source} (seed {SEED})")
    for other in gpu_names():
        if other != name:
            borrow(other, dict.fromkeys(BAGS, name))


def fill() -> None:
    """Put what has no table of its own into every GPU's file."""
    fit_bags()
    for name, keys in GAPS.items():
        borrow(name, keys)
    for name in NEAREST:
        borrow(name, all_of(name))
    for name in (*tables.SYSTEMS, "a100-sxm-40gb", "h100-pcie"):
        alike(name)


def main() -> None:
    """Fit the GPUs that are named, or all that have tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gpu", nargs="*", help=f"one of {', '.join(tables.SYSTEMS)}; all by default")
    parser.add_argument("--check", action="store_true", help="print what would be written, write nothing")
    wanted = parser.parse_args()
    # what others borrow is fitted first, so that a fit does not hang on what the files held before
    for name in sorted(wanted.gpu or tables.SYSTEMS, key=lambda name: name not in POWER_TABLES):
        facts: Facts = load_gpu(name)
        heat = START["sustained_heat"] if name in POWER_TABLES else load_gpu("h200-sxm").sustained_heat
        facts = put(facts, {"sustained_heat": heat})
        for task in tasks(name, facts):
            values = fit(facts, task)
            facts = put(facts, values)
            residual = task.residuals(facts)
            found = score(np.exp(residual), np.ones_like(residual))
            print(f"{name}: {task.source}: median {found.median:.1%}, 90th percentile {found.ninth:.1%}")
            print("  " + ", ".join(f"{k} = {v:g}" for k, v in values.items()), flush=True)
            if not wanted.check:
                write(name, values, f"fitted by make fit-gpu: {task.source} (seed {SEED})")
    if not wanted.check:
        fill()
        write_bands()


if __name__ == "__main__":
    main()
