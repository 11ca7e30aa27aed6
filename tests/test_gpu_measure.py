"""The script that measures a user's own GPU: its rows, comparison, refusals. Measuring needs a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import gpu_measure as script  # noqa: E402

from mtia_emu.gpu import load_gpu  # noqa: E402

GPU = load_gpu("h100-sxm")
HEAD = "gpu,op,dtype,a,b,c,d,latency_us\n"
SHAPES = {
    "gemm": (64, 4096, 4096, 1),
    "attention": (8, 32, 8, 2048),
    "prefill": (2, 32, 8, 512),
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
        "prefill": 2 * (2 * a * c * d * 128 + a * b * d * 128),
        "embedding_bag": 2 * a * b * c + 8 * a * b + 8 * (a + 1),
        "copy": a,
    }
    assert script.work(row(op)).read_bytes == reads[op]


def test_a_gemm_is_the_matmul_of_the_reference() -> None:
    assert row("gemm").latency_us == pytest.approx(GPU.matmul_seconds(64, 4096, 4096, "bf16") * 1e6)


def test_comparison_says_how_far_off() -> None:
    lines = script.compare(GPU, [row(op, 1.25) for op in SHAPES]).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[op, "bfloat16"] for op in SHAPES]
    assert all(line.split()[3:] == ["20.0%", "20.0%", "-20.0%"] for line in lines[1:])


def test_each_dtype_is_compared_as_itself() -> None:
    half, eight = (
        GPU.kernel(script.work(script.Row("mine", "gemm", kind, 4096, 4096, 4096, 1, 1.0)))
        for kind in ("float16", "float8_e4m3fn")
    )
    assert half.seconds == GPU.matmul_seconds(4096, 4096, 4096, "fp16")
    assert eight.seconds < 0.7 * half.seconds
    assert script.work(script.Row("mine", "gemm", "float8_e4m3fn", 2, 3, 5, 1, 1.0)).write_bytes == 2 * 2 * 5


def test_prefill_is_causal_and_decode_is_not() -> None:
    whole, one = (script.work(row(op)) for op in ("prefill", "attention"))
    assert (whole.batch, whole.kv_heads, whole.group, whole.queries, whole.keys) == (2, 8, 4, 512, 512)
    assert (one.batch, one.kv_heads, one.group, one.queries, one.keys) == (8, 8, 4, 1, 2048)
    assert (whole.diagonal, one.diagonal) == (0, None)


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
        (f"{HEAD}x,gemm,bfloat16,1,1,one,1,2\n", "line 2: sizes are whole numbers"),
        (f"{HEAD}x,gemm,bfloat16,1,0,1,1,2\n", "line 2: sizes are 1 to"),
        (f"{HEAD}x,gemm,bfloat16,1,{10**30},1,1,2\n", "line 2: sizes are 1 to"),
        (f"{HEAD}x,gemm,bfloat16,1,1,1,1,nan\n", "latency_us above 0"),
        (f"{HEAD}x,gemm,bf16,1,1,1,1,2\n", "line 2: unknown dtype 'bf16'"),
        (f"{HEAD}x,conv,bfloat16,1,1,1,1,2\n", "line 2: unknown op 'conv'"),
    ],
)
def test_wrong_rows_are_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(SystemExit, match=words):
        script.read(tmp_path / "rows.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not a file"):
        script.read(tmp_path / "none.csv")


def test_operands_of_a_round_leave_l2() -> None:
    for size in (1 << 10, 1 << 20, 1 << 25, 1 << 32):
        sets = script.copies(size)
        assert 1 <= sets <= 64 and (sets * size >= script.LEAST_BYTES or sets == 64)


class FakeCuda:
    """Stands in for torch.cuda where there is no GPU: a replay takes 0.5 ms of a clock that events note."""

    OutOfMemoryError = MemoryError

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.clock_ms = 0.0
        self.order: list[str] = []
        self.capability = capability

    def is_available(self) -> bool:
        return True

    def get_device_name(self, _: int) -> str:
        return "made-up GPU"

    def get_device_capability(self, _: int) -> tuple[int, int]:
        return self.capability

    def current_stream(self) -> None: ...

    def synchronize(self) -> None:
        self.order.append("synchronize")

    def Stream(self) -> FakeCuda:
        return self

    def wait_stream(self, _: object) -> None:
        self.order.append("wait")

    @contextmanager
    def stream(self, _: object) -> Iterator[None]:
        self.order.append("warm")
        yield

    def CUDAGraph(self) -> FakeCuda:
        return self

    @contextmanager
    def graph(self, _: object) -> Iterator[None]:
        self.order.append("capture")
        yield

    def replay(self) -> None:
        self.order.append("replay")
        self.clock_ms += 0.5

    def Event(self, enable_timing: bool) -> FakeEvent:
        return FakeEvent(self)


class FakeEvent:
    """An event that notes the fake's clock."""

    def __init__(self, owner: FakeCuda) -> None:
        self.owner, self.at_ms = owner, 0.0

    def record(self) -> None:
        self.at_ms = self.owner.clock_ms

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at_ms - self.at_ms


def fake_torch(**settings: tuple[int, int]) -> MagicMock:
    """Return a stand-in for torch: its tensors compute nothing, its GPU is a clock."""
    return MagicMock(cuda=FakeCuda(**settings))


def test_a_round_is_shared_among_its_kernels() -> None:
    ran, torch = [], fake_torch()
    assert script.timed(torch, [lambda: ran.append(1)] * 4) == pytest.approx(125.0)  # 0.5 ms over 4
    assert len(ran) == 4 * 4  # three rounds to warm up, one to capture
    # operands must be there before another stream reads them, and warm-up over before the capture
    assert torch.cuda.order[:5] == ["wait", "warm", "synchronize", "capture", "replay"]


PLAN = [
    ("gemm", "bfloat16", [(64, 512, 512, 1)]), ("gemm", "float8_e4m3fn", [(64, 512, 512, 1)]),
    ("attention", "bfloat16", [(8, 32, 8, 2048)]), ("prefill", "bfloat16", [(1, 32, 8, 128)]),
    ("embedding_bag", "bfloat16", [(512, 20, 128, 4096)]), ("copy", "bfloat16", [(1 << 20, 1, 1, 1)]),
]  # fmt: skip


def test_what_is_measured_is_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole path, from kernels to the printed errors, on rows that a stand-in makes up."""
    monkeypatch.setattr(script, "PLAN", PLAN)
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    monkeypatch.setattr(sys, "argv", ["gpu_measure.py", "--csv", str(tmp_path / "rows.csv")])
    script.main()
    measured = capsys.readouterr().out.splitlines()
    rows = script.read(tmp_path / "rows.csv")
    assert [(r.op, r.dtype, (r.a, r.b, r.c, r.d)) for r in rows] == [(o, t, s[0]) for o, t, s in PLAN]
    sets = script.copies(2 * 512 * 512)
    assert rows[0].latency_us == pytest.approx(500 / sets) and rows[0].gpu == "made-up GPU"
    monkeypatch.setattr(sys, "argv", ["gpu_measure.py", "--read", str(tmp_path / "rows.csv")])
    script.main()
    assert capsys.readouterr().out.splitlines() == measured == script.compare(GPU, rows).splitlines()


def test_what_a_gpu_cannot_do_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> script.Kernels:
        raise MemoryError

    monkeypatch.setitem(script.KERNELS, "copy", full)
    rows = script.measure(fake_torch(capability=(8, 0)), PLAN)
    assert [r.op for r in rows] == ["gemm", "attention", "prefill", "embedding_bag"]
    assert "copy bfloat16 (1048576, 1, 1, 1): does not fit" in capsys.readouterr().err


def test_every_plan_can_be_compared() -> None:
    for op, kind, each in script.PLAN:
        for sizes in each:
            assert GPU.kernel(script.work(script.Row("", op, kind, *sizes, 1.0))).seconds > 0


@pytest.mark.parametrize(
    ("op", "sizes", "shape"),
    [
        ("gemm", (3, 32, 16, 1), (3, 16)),
        ("attention", (2, 8, 2, 20), (2, 8, 1, 128)),
        ("prefill", (2, 8, 2, 20), (2, 8, 20, 128)),
        ("embedding_bag", (4, 5, 8, 100), (4, 8)),
        ("copy", (64, 1, 1, 1), (32,)),
    ],
)
def test_kernels_run_on_torch(
    op: str, sizes: tuple[int, ...], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not among what tests install")
    monkeypatch.setattr(script, "MOST_SETS", 2)
    results = [kernel() for kernel in script.KERNELS[op](torch, "cpu", "bfloat16", *sizes)]
    assert len(results) >= 2 and all(tuple(r.shape) == shape for r in results)
    assert all(r.dtype == torch.bfloat16 and bool(r.isfinite().all()) for r in results)
