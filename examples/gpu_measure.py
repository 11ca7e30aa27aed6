"""Measure kernels on a CUDA GPU with torch, and compare them with the GPU reference.

    python examples/gpu_measure.py --gpu h100-sxm --csv mine.csv     # measure, write, compare
    python examples/gpu_measure.py --gpu h100-sxm --read mine.csv    # compare rows that are there

Needs torch 2.5 or newer with CUDA to measure; comparing needs neither. Data are random (zeros draw less
power and run faster), times are of device events around a CUDA graph, the median of repeats, over enough
copies of the operands to leave L2. Rows have the columns gpu, op, dtype, a, b, c, d, latency_us, with sizes
by operation:

    gemm           a x b by b x c                            d = 1
    attention      a sequences, b query heads on c key heads, d keys, one query each, head size 128
    prefill        a sequences, b query heads on c key heads, d tokens under a causal mask, head size 128
    embedding_bag  a bags of b rows, of c elements, from a table of d rows
    copy           a bytes read and written                  b = c = d = 1

Attention is torch's (scaled_dot_product_attention); the reference stands for a serving runtime's, which
splits long caches in decode: expect torch to be slower there.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from mtia_emu.gpu import Gpu, load_gpu
from mtia_emu.types import BF16, FP16, AttentionWork, BagWork, CopyWork, DType, ProductWork, Work, dtype

Kernels = list[Callable[[], Any]]

HEAD_SIZE = 128
LEAST_BYTES = 512 << 20  # operands of one round: beyond any L2
MOST_SETS = 64  # of operands in a round: small ones, whose launch is most of their time, may stay in L2
REPEATS = 20
FP8_CAPABILITY = (8, 9)  # compute capability from which torch multiplies fp8 (torch._scaled_mm)
DTYPES: dict[str, DType] = {"bfloat16": BF16, "float16": FP16, "float8_e4m3fn": dtype("fp8_e4m3")}
"""torch's names of dtypes, and the reference's."""

GEMMS = [
    (m, k, n, 1)
    for k, n in ((2048, 2048), (4096, 4096), (4096, 14336), (14336, 4096), (8192, 8192), (512, 16384))
    for m in (1, 16, 64, 128, 256, 512, 1024, 4096, 8192)
]
ATTENTION = [(b, 32, 8, n) for b in (1, 8, 32, 128) for n in (512, 2048, 8192) if b * n <= 1 << 18]
PREFILL = [(b, 32, 8, n) for b in (1, 8) for n in (128, 512, 2048, 8192) if b * n <= 1 << 14]
BAGS = [(b, p, d, 1 << 20) for b in (512, 4096) for p in (1, 20, 80) for d in (64, 128, 256)]
COPIES = [(1 << e, 1, 1, 1) for e in range(20, 31, 2)]
PLAN = [
    ("gemm", "bfloat16", GEMMS), ("gemm", "float16", GEMMS), ("gemm", "float8_e4m3fn", GEMMS),
    ("attention", "bfloat16", ATTENTION), ("prefill", "bfloat16", PREFILL),
    ("embedding_bag", "bfloat16", BAGS), ("copy", "bfloat16", COPIES),
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured kernel; the sizes are as in the text of this file."""

    gpu: str
    op: str
    dtype: str
    a: int
    b: int
    c: int
    d: int
    latency_us: float


def work(row: Row) -> Work:
    """Return the work of a row, as the reference wants it; leave with a word on what is wrong with a row."""
    if row.dtype not in DTYPES:
        raise SystemExit(f"unknown dtype {row.dtype!r} (right: {', '.join(DTYPES)})")
    if row.op not in WORKS:
        raise SystemExit(f"unknown op {row.op!r} (right: {', '.join(WORKS)})")
    return WORKS[row.op](DTYPES[row.dtype], row.a, row.b, row.c, row.d)


def _gemm_work(kind: DType, m: int, k: int, n: int, _: int) -> Work:
    size, out = kind.bytes, max(kind.bytes, BF16.bytes)  # the result of fp8 operands is bf16
    read, write = size * (m + n) * k, out * m * n
    return ProductWork(
        "", "matmul", kind, batch=1, m=m, k=k, n=n, flops=0, read_bytes=read, write_bytes=write
    )


def _attention_work(kind: DType, batch: int, heads: int, kv_heads: int, keys: int, causal: bool) -> Work:
    return AttentionWork(
        "", "attention", kind, batch=batch, kv_heads=kv_heads, group=heads // kv_heads,
        queries=keys if causal else 1, keys=keys, key_size=HEAD_SIZE, value_size=HEAD_SIZE,
        diagonal=0 if causal else None,
    )  # fmt: skip


def _bag_work(kind: DType, bags: int, pooling: int, dim: int, rows: int) -> Work:
    lookups = bags * pooling
    read = min(lookups, rows) * dim * kind.bytes + 8 * lookups + 8 * (bags + 1)
    return BagWork(
        "", "embedding_bag", kind, lookups=lookups, bags=bags, dim=dim, rows=rows, flops=lookups * dim,
        read_bytes=read, write_bytes=bags * dim * kind.bytes,
    )  # fmt: skip


def _copy_work(kind: DType, size: int, *_: int) -> Work:
    return CopyWork("", "copy", kind, read_bytes=size, write_bytes=size)


WORKS: dict[str, Callable[..., Work]] = {
    "gemm": _gemm_work,
    "attention": partial(_attention_work, causal=False), "prefill": partial(_attention_work, causal=True),
    "embedding_bag": _bag_work, "copy": _copy_work,
}  # fmt: skip


def compare(gpu: Gpu, rows: Iterable[Row]) -> str:
    """Return a line for each operation and dtype: rows, median error, 90th percentile, bias."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        modelled_us = gpu.kernel(work(row)).seconds * 1e6
        errors.setdefault(f"{row.op} {row.dtype}", []).append(modelled_us / row.latency_us - 1)
    lines = [f"{'operation':30}{'rows':>6}{'median':>9}{'90 %':>9}{'bias':>9}"]
    for name, signed in errors.items():
        size = sorted(map(abs, signed))
        median, ninth = statistics.median(size), size[min(len(size) - 1, int(0.9 * len(size)))]
        lines.append(f"{name:30}{len(size):6}{median:9.1%}{ninth:9.1%}{statistics.median(signed):+9.1%}")
    return "\n".join(lines)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(f.name for f in fields(Row))
        out.writerows(astuple(row) for row in rows)


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV file; leave with a word on what is wrong with one."""
    if not path.is_file():
        raise SystemExit(f"{path} is not a file")
    with path.open(encoding="utf-8", newline="") as stream:
        found = csv.DictReader(stream)
        if found.fieldnames != [f.name for f in fields(Row)]:
            raise SystemExit(
                f"{path}: columns are {found.fieldnames} (right: {[f.name for f in fields(Row)]})"
            )
        return [_row(path, i, line) for i, line in enumerate(found, 2)]


def _row(path: Path, number: int, line: dict[str, str]) -> Row:
    try:
        sizes = [int(line[x]) for x in "abcd"]
        latency = float(line["latency_us"])
    except (TypeError, ValueError):
        raise SystemExit(f"{path}, line {number}: sizes are whole numbers, latency_us a number") from None
    if not all(1 <= size <= 1 << 40 for size in sizes) or not 0 < latency < 1e12:
        raise SystemExit(f"{path}, line {number}: sizes are 1 to 2^40, latency_us above 0")
    row = Row(line["gpu"], line["op"], line["dtype"], *sizes, latency)
    try:
        work(row)
    except SystemExit as error:
        raise SystemExit(f"{path}, line {number}: {error}") from None
    return row


def copies(operand_bytes: int) -> int:
    """Return how many sets of operands a round goes through, so that none is found in L2."""
    return max(1, min(MOST_SETS, math.ceil(LEAST_BYTES / max(1, operand_bytes))))


def timed(torch: Any, kernels: Kernels) -> float:
    """Return the microseconds of one kernel: the median round of a CUDA graph of all of them, shared out."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())  # that the operands are there
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their kernels, and take their workspaces, at the first calls
            for kernel in kernels:
                kernel()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for kernel in kernels:
            kernel()
    graph.replay()
    torch.cuda.synchronize()
    rounds = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        rounds.append(start.elapsed_time(end) * 1e3 / len(kernels))
    return statistics.median(rounds)


def gemm(torch: Any, device: str, kind: str, m: int, k: int, n: int, _: int) -> Kernels:
    """Return linear layers of weights [n, k]; fp8 ones with a scale a tensor."""

    def tensor(rows: int) -> Any:
        return torch.randn(rows, k, device=device, dtype=torch.bfloat16).to(getattr(torch, kind))

    x, weights = tensor(m), [tensor(n) for _ in range(copies(DTYPES[kind].bytes * n * k))]
    if kind != "float8_e4m3fn":
        return [lambda w=w: torch.nn.functional.linear(x, w) for w in weights]
    one = torch.ones((), device=device, dtype=torch.float32)
    run = torch._scaled_mm
    return [lambda w=w: run(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16) for w in weights]


def attention(
    torch: Any, device: str, kind: str, batch: int, heads: int, kv_heads: int, keys: int
) -> Kernels:
    """Return decode attention with grouped heads: one query of each head."""
    return _attention(torch, device, kind, (batch, heads, kv_heads, keys), 1)


def prefill(
    torch: Any, device: str, kind: str, batch: int, heads: int, kv_heads: int, tokens: int
) -> Kernels:
    """Return causal attention with grouped heads: a query of each token."""
    return _attention(torch, device, kind, (batch, heads, kv_heads, tokens), tokens)


def _attention(torch: Any, device: str, kind: str, sizes: tuple[int, int, int, int], queries: int) -> Kernels:
    batch, heads, kv_heads, keys = sizes

    def tensor(h: int, length: int) -> Any:
        return torch.randn(batch, h, length, HEAD_SIZE, device=device, dtype=getattr(torch, kind))

    q = tensor(heads, queries)
    sets = copies(2 * DTYPES[kind].bytes * batch * kv_heads * keys * HEAD_SIZE)
    each = [(tensor(kv_heads, keys), tensor(kv_heads, keys)) for _ in range(sets)]
    run, causal = torch.nn.functional.scaled_dot_product_attention, queries > 1
    return [lambda k=k, v=v: run(q, k, v, is_causal=causal, enable_gqa=True) for k, v in each]


def embedding_bag(
    torch: Any, device: str, kind: str, bags: int, pooling: int, dim: int, rows: int
) -> Kernels:
    """Return summed embedding bags: uniform look-ups by int64 indices, bags by offsets made beforehand."""
    table = torch.randn(rows, dim, device=device, dtype=getattr(torch, kind))
    offsets = torch.arange(0, bags * pooling, pooling, device=device)
    each = [torch.randint(rows, (bags * pooling,), device=device) for _ in range(8)]
    run = torch.nn.functional.embedding_bag
    return [lambda i=i: run(i, table, offsets, mode="sum") for i in each]


def copy(torch: Any, device: str, kind: str, size: int, *_: int) -> Kernels:
    """Return copies within the GPU's memory."""
    count = size // DTYPES[kind].bytes
    each = [torch.randn(count, device=device, dtype=getattr(torch, kind)) for _ in range(copies(2 * size))]
    out = [torch.empty_like(x) for x in each]
    return [lambda x=x, y=y: y.copy_(x) for x, y in zip(each, out, strict=True)]


KERNELS: dict[str, Callable[..., Kernels]] = {
    "gemm": gemm, "attention": attention, "prefill": prefill, "embedding_bag": embedding_bag, "copy": copy,
}  # fmt: skip


def measure(torch: Any, plan: Sequence[tuple[str, str, Sequence[tuple[int, int, int, int]]]]) -> list[Row]:
    """Return the rows of this machine's first GPU; say what its memory is too small for, and leave it out."""
    from rich.console import Console
    from rich.progress import track

    torch.manual_seed(0)
    name, rows = torch.cuda.get_device_name(0), []
    able = torch.cuda.get_device_capability(0) >= FP8_CAPABILITY
    todo = [(op, kind, sizes) for op, kind, each in plan for sizes in each if able or "float8" not in kind]
    with torch.inference_mode():
        for op, kind, sizes in track(todo, description=name, console=Console(stderr=True)):
            try:
                latency_us = timed(torch, KERNELS[op](torch, "cuda", kind, *sizes))
            except torch.cuda.OutOfMemoryError:
                print(f"{op} {kind} {sizes}: does not fit this GPU's memory", file=sys.stderr)
                continue
            rows.append(Row(name, op, kind, *sizes, latency_us))
    return rows


def main() -> None:
    """Measure or read rows, and print how far the reference is from them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", default="h100-sxm", help="GPU of the reference, or a .toml file")
    parser.add_argument("--csv", type=Path, help="write the measured rows here")
    parser.add_argument("--read", type=Path, help="compare the rows of this file instead of measuring")
    wanted = parser.parse_args()
    gpu = load_gpu(wanted.gpu)
    if wanted.read:
        rows = read(wanted.read)
    else:
        try:
            import torch
        except ImportError:
            sys.exit("measuring needs torch (pip install torch); --read compares rows that are there")
        if not torch.cuda.is_available():
            sys.exit("torch finds no CUDA GPU; --read compares rows that are there")
        rows = measure(torch, PLAN)
    if wanted.csv:
        write(wanted.csv, rows)
    print(compare(gpu, rows))


if __name__ == "__main__":
    main()
