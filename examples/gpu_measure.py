"""Measure kernels on a CUDA GPU with torch, and compare them with the GPU reference.

    python examples/gpu_measure.py --gpu h100-sxm --csv mine.csv     # measure, write, compare
    python examples/gpu_measure.py --gpu h100-sxm --read mine.csv    # compare rows that are there

Needs torch with CUDA to measure; comparing needs neither. Data are random (zeros draw less power and run
faster), times are of device events around a CUDA graph, the median of repeats, over enough copies of the
operands to leave L2. Rows have the columns gpu, op, dtype, a, b, c, d, latency_us, with sizes by operation:

    gemm           a x b by b x c                            d = 1
    attention      a sequences, b query heads on c key heads, d keys, one query each, head size 128
    embedding_bag  a bags of b rows, of c elements, from a table of d rows
    copy           a bytes read and written                  b = c = d = 1
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from mtia_emu.gpu import Gpu, load_gpu
from mtia_emu.types import BF16, Work

HEAD_SIZE = 128
LEAST_BYTES = 512 << 20  # operands of one round: beyond any L2
REPEATS = 20
GEMMS = [
    (m, k, n)
    for k, n in ((2048, 2048), (4096, 4096), (4096, 14336), (14336, 4096), (8192, 8192), (512, 16384))
    for m in (1, 16, 64, 128, 256, 512, 1024, 4096, 8192)
]
ATTENTION = [(b, 32, 8, n) for b in (1, 8, 32, 128) for n in (512, 2048, 8192) if b * n <= 1 << 18]
BAGS = [(b, p, d, 1 << 20) for b in (512, 4096) for p in (1, 20, 80) for d in (64, 128, 256)]
COPIES = [1 << e for e in range(20, 31, 2)]


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
    """Return the work of a row, as the reference wants it."""
    size = BF16.bytes
    a, b, c, d = row.a, row.b, row.c, row.d
    if row.op == "gemm":
        return Work(
            "", "matmul", "matmul", BF16, (1, a, b, c), a * b * c, 0, size * (a * b + b * c), size * a * c
        )
    if row.op == "attention":
        kv, io = 2 * size * a * c * d * HEAD_SIZE, size * a * b * HEAD_SIZE
        shape = (a * c, b // c, 0, d, HEAD_SIZE, HEAD_SIZE)
        return Work("", "attention", "attention", BF16, shape, 2 * a * b * d * HEAD_SIZE, 0, kv + io, io)
    if row.op == "embedding_bag":
        read = min(a * b, d) * c * size + 8 * a * b + 8 * (a + 1)
        return Work(
            "", "embedding_bag", "embedding_bag", BF16, (a * b, a, c, d), 0, a * b * c, read, a * c * size
        )
    if row.op == "copy":
        return Work("", "copy", "move", BF16, (a // size,), 0, 0, a, a)
    raise SystemExit(f"unknown op {row.op!r} (right: gemm, attention, embedding_bag, copy)")


def compare(gpu: Gpu, rows: Iterable[Row]) -> str:
    """Return a line for each operation: rows, median error, 90th percentile, bias of the reference."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        modelled_us = gpu.kernel(work(row)).seconds * 1e6
        errors.setdefault(row.op, []).append(modelled_us / row.latency_us - 1)
    lines = [f"{'operation':15}{'rows':>6}{'median':>9}{'90 %':>9}{'bias':>9}"]
    for op, signed in errors.items():
        size = sorted(map(abs, signed))
        median, ninth = statistics.median(size), size[min(len(size) - 1, int(0.9 * len(size)))]
        lines.append(f"{op:15}{len(size):6}{median:9.1%}{ninth:9.1%}{statistics.median(signed):+9.1%}")
    return "\n".join(lines)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(f.name for f in fields(Row))
        out.writerows(astuple(row) for row in rows)


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV file; leave with a word on what is wrong with one."""
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
    if min(sizes) < 1 or not 0 < latency < 1e12:
        raise SystemExit(f"{path}, line {number}: sizes are at least 1, latency_us above 0")
    return Row(line["gpu"], line["op"], line["dtype"], *sizes, latency)


def copies(operand_bytes: int) -> int:
    """Return how many sets of operands a round goes through, so that none is found in L2."""
    return max(1, min(64, -(-LEAST_BYTES // max(1, operand_bytes))))


def timed(torch: Any, kernels: Sequence[Callable[[], object]]) -> float:
    """Return the microseconds of one kernel: the median round of a CUDA graph of all of them, shared out."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their kernels at the first calls
            for kernel in kernels:
                kernel()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for kernel in kernels:
            kernel()
    graph.replay()
    rounds = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        rounds.append(start.elapsed_time(end) * 1e3 / len(kernels))
    return statistics.median(rounds)


def gemm(torch: Any, m: int, k: int, n: int) -> float:
    """Return the microseconds of a linear layer of bf16 weights [n, k]."""
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    each = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies(2 * n * k))]
    return timed(torch, [lambda w=w: torch.nn.functional.linear(x, w) for w in each])


def attention(torch: Any, batch: int, heads: int, kv_heads: int, keys: int) -> float:
    """Return the microseconds of decode attention with grouped heads."""

    def tensor(h: int, length: int) -> Any:
        return torch.randn(batch, h, length, HEAD_SIZE, device="cuda", dtype=torch.bfloat16)

    q = tensor(heads, 1)
    sets = copies(4 * batch * kv_heads * keys * HEAD_SIZE)
    each = [(tensor(kv_heads, keys), tensor(kv_heads, keys)) for _ in range(sets)]
    run = torch.nn.functional.scaled_dot_product_attention
    return timed(torch, [lambda k=k, v=v: run(q, k, v, enable_gqa=True) for k, v in each])


def embedding_bag(torch: Any, bags: int, pooling: int, dim: int, rows: int) -> float:
    """Return the microseconds of summed embedding bags, uniform look-ups in a table of bf16."""
    table = torch.randn(rows, dim, device="cuda", dtype=torch.bfloat16)
    each = [torch.randint(rows, (bags, pooling), device="cuda") for _ in range(8)]
    run = torch.nn.functional.embedding_bag
    return timed(torch, [lambda i=i: run(i, table, mode="sum") for i in each])


def copy(torch: Any, size: int) -> float:
    """Return the microseconds of a copy within the GPU's memory."""
    each = [torch.randn(size // 4, device="cuda") for _ in range(copies(2 * size))]
    out = [torch.empty_like(x) for x in each]
    return timed(torch, [lambda x=x, y=y: y.copy_(x) for x, y in zip(each, out, strict=True)])


def measure(torch: Any) -> list[Row]:
    """Return the rows of this machine's first GPU."""
    torch.manual_seed(0)
    name = torch.cuda.get_device_name(0)
    rows = []
    for m, k, n in GEMMS:
        rows.append(Row(name, "gemm", "bfloat16", m, k, n, 1, gemm(torch, m, k, n)))
    for sizes in ATTENTION:
        rows.append(Row(name, "attention", "bfloat16", *sizes, attention(torch, *sizes)))
    for sizes in BAGS:
        rows.append(Row(name, "embedding_bag", "bfloat16", *sizes, embedding_bag(torch, *sizes)))
    for size in COPIES:
        rows.append(Row(name, "copy", "bfloat16", size, 1, 1, 1, copy(torch, size)))
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
        rows = measure(torch)
    if wanted.csv:
        write(wanted.csv, rows)
    print(compare(gpu, rows))


if __name__ == "__main__":
    main()
