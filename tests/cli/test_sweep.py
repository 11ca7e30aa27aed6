"""The commands about many chips: sweep, report."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtia_emu.cli.app import main
from mtia_emu.zoo.operators import Gemm


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an ONNX file of one small product."""
    return str(Gemm(16, 32, 24, "fp32").build(tmp_path_factory.mktemp("product"), None))


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def told(*words: str) -> str:
    """Return the error that a command ends with."""
    done = cli(*words)
    assert done.exit_code == 2 and "Traceback" not in done.output
    return done.stderr


@pytest.fixture(scope="module")
def store(product: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a sweep of a spec file that flags change."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "spec.toml").write_text('chip = "mtia-2i"\nseed = 3\n[set]\n"dram.channels" = [1, 2]\n')
    words = ["sweep", str(folder / "spec.toml"), "--model", f"{product},name=p,weight=2", "--chip", "tiny"]
    words += ["--set", "dram.channel_bytes_per_s=1e9,2e9", "--link", "sram.bytes=dram.channels * 65536"]
    words += ["--constraint", "area_mm2 <= 1000", "--objective", "seconds", "--objective", "dollars"]
    done = cli(*words, "--gpu", "a100-sxm-80gb", "-o", str(folder / "s.db"), "--jobs", "0")
    assert "4 points: 4 ok" in done.output and "best in each objective" in done.output
    return folder / "s.db"


def test_a_store_is_shown_as_a_table(store: Path) -> None:
    shown = cli("report", str(store)).output
    assert "4 points: 4 ok" in shown
    assert all(word in shown for word in ("base", "seconds", "dollars", "dram.channels", "sram.bytes"))


def test_a_store_is_written_as_everything(store: Path, tmp_path: Path) -> None:
    cli("report", str(store), "-o", str(tmp_path / "r.html"), "--csv", str(tmp_path / "r.csv"))
    cli("report", str(store), "--parquet", str(tmp_path / "r.parquet"))
    for kind in ("pareto", "parallel", "sensitivity", "energy", "roofline"):
        cli("report", str(store), "-o", str(tmp_path / f"{kind}.svg"), "--picture", kind)
    cli("report", str(store), "-o", str(tmp_path / "xy.png"), "--x", "area_mm2", "--y", "p.seconds")
    assert len(list(tmp_path.iterdir())) == 9
    assert (
        (tmp_path / "r.csv")
        .read_text()
        .startswith("point,dram.channels,dram.channel_bytes_per_s,sram.bytes,status,reason,seconds,joules")
    )
    assert "a100-sxm-80gb" in (tmp_path / "r.html").read_text()


def test_bad_requests_are_told(store: Path, product: str, tmp_path: Path) -> None:
    new = ["-o", str(tmp_path / "n.db")]
    model = ["--model", product, "--chip", "tiny"]
    assert "needs a model" in told("sweep", *new)
    assert "exists: --resume continues it" in told("sweep", *model, "-o", str(store))
    assert "the spec has changed: '" in told("sweep", *model, "--resume", "-o", str(store))
    assert "two ways to a cluster" in told(
        "sweep", *model, *new, "--workers", "1", "--scheduler", "tcp://x:1"
    )
    assert "not KEY=EXPR" in told("sweep", *model, *new, "--link", "sram.bytes")
    assert "gives 'dram.channels' twice" in told(
        "sweep", *model, *new, "--set", "dram.channels=1", "--set", "dram.channels=2"
    )
    million = ["--set", "dram.channels=1..1000 step 1", "--set", "sram.bytes=1..1000 step 1"]
    assert "1,000,000 points" in told("sweep", *model, *new, *million)
    assert "is not a file" in told("sweep", "nowhere.toml", *new)
    assert "is not a file" in told("report", str(tmp_path / "nothing.db"))
    assert "a report is .html" in told("report", str(store), "-o", str(tmp_path / "r.pdf"))
    assert "no column 'speed'" in told("report", str(store), "-o", str(tmp_path / "r.svg"), "--x", "speed")
    assert list(tmp_path.iterdir()) == []
