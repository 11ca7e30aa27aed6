"""The script that measures a user's own GPU: its rows, comparison, refusals. Measuring needs a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import gpu_measure as script  # noqa: E402

from mtia_emu.gpu import load_gpu  # noqa: E402

GPU = load_gpu("h100-sxm")
SHAPES = {
    "gemm": (64, 4096, 4096, 1),
    "attention": (8, 32, 8, 2048),
    "embedding_bag": (512, 20, 128, 1 << 20),
    "copy": (1 << 28, 1, 1, 1),
}


def row(op: str, factor: float = 1.0) -> script.Row:
    """Return a row whose latency is the reference's times a factor."""
    blank = script.Row("mine", op, "bfloat16", *SHAPES[op], 1.0)
    seconds = GPU.kernel(script.work(blank)).seconds
    return script.Row("mine", op, "bfloat16", *SHAPES[op], seconds * 1e6 * factor)


@pytest.mark.parametrize("op", SHAPES)
def test_work_has_the_bytes_of_the_kernel(op: str) -> None:
    a, b, c, d = SHAPES[op]
    reads = {
        "gemm": 2 * (a * b + b * c),
        "attention": 2 * (2 * a * c * d * 128 + a * b * 128),
        "embedding_bag": 2 * a * b * c + 8 * a * b + 8 * (a + 1),
        "copy": a,
    }
    assert script.work(row(op)).read_bytes == reads[op]


def test_a_gemm_is_the_matmul_of_the_reference() -> None:
    assert row("gemm").latency_us == pytest.approx(GPU.matmul_seconds(64, 4096, 4096, "bf16") * 1e6)


def test_comparison_says_how_far_off() -> None:
    lines = script.compare(GPU, [row(op, 1.25) for op in SHAPES]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(SHAPES)
    assert all(line.split()[2:] == ["20.0%", "20.0%", "-20.0%"] for line in lines[1:])


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [row(op) for op in SHAPES]
    script.write(tmp_path / "rows.csv", rows)
    assert script.read(tmp_path / "rows.csv") == rows
    command = [sys.executable, str(EXAMPLES / "gpu_measure.py"), "--read", str(tmp_path / "rows.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == script.compare(GPU, rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu,op\n", "columns are"),
        ("gpu,op,dtype,a,b,c,d,latency_us\nx,gemm,bf16,1,1,one,1,2\n", "line 2: sizes are whole numbers"),
        ("gpu,op,dtype,a,b,c,d,latency_us\nx,gemm,bf16,1,0,1,1,2\n", "line 2: sizes are at least 1"),
        ("gpu,op,dtype,a,b,c,d,latency_us\nx,gemm,bf16,1,1,1,1,nan\n", "latency_us above 0"),
    ],
)
def test_wrong_rows_are_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(SystemExit, match=words):
        script.read(tmp_path / "rows.csv")


def test_unknown_ops_are_named() -> None:
    with pytest.raises(SystemExit, match="unknown op 'conv'"):
        script.work(script.Row("x", "conv", "bf16", 1, 1, 1, 1, 1.0))


def test_operands_of_a_round_leave_l2() -> None:
    for size in (1 << 10, 1 << 20, 1 << 25, 1 << 32):
        sets = script.copies(size)
        assert 1 <= sets <= 64 and (sets * size >= script.LEAST_BYTES or sets == 64)


class FakeTorch:
    """Stands in for torch where there is no GPU: events that count what a graph replays."""

    def __init__(self) -> None:
        self.cuda = self
        self.calls = 0
        self.clock_ms = 0.0

    def Stream(self) -> FakeTorch:
        return self

    def stream(self, _: object) -> FakeTorch:
        return self

    def CUDAGraph(self) -> FakeTorch:
        return self

    def graph(self, _: object) -> FakeTorch:
        return self

    def __enter__(self) -> FakeTorch:
        return self

    def __exit__(self, *_: object) -> None: ...

    def replay(self) -> None:
        self.clock_ms += 0.5

    def synchronize(self) -> None: ...

    def Event(self, enable_timing: bool) -> FakeEvent:
        return FakeEvent(self)


class FakeEvent:
    """An event that notes the fake's clock."""

    def __init__(self, owner: FakeTorch) -> None:
        self.owner, self.at_ms = owner, 0.0

    def record(self) -> None:
        self.at_ms = self.owner.clock_ms

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at_ms - self.at_ms


def test_a_round_is_shared_among_its_kernels() -> None:
    ran = []
    assert script.timed(FakeTorch(), [lambda: ran.append(1)] * 4) == pytest.approx(125.0)  # 0.5 ms over 4
    assert len(ran) == 4 * 4  # three rounds to warm up, one to capture
