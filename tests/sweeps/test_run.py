"""A whole sweep: the same rows however it is run, through deaths, hangs and kills."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas
import pytest

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.sweeps import local
from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.local import Pool, on_cores
from mtia_emu.sweeps.row import Row
from mtia_emu.sweeps.space import Space
from mtia_emu.sweeps.worker import Limits

MANY = {"dram.channels": "1..10 step 1", "sram.latency_s": "1e-8..3e-8 step 1e-8"}


@pytest.fixture
def many(make: Any) -> Any:
    return make(set=MANY, constraints=[])


@pytest.fixture
def here(many: Any) -> list[Row]:
    """Return the rows of the larger sweep, made in this process."""
    evaluator = Evaluator(make_job(many))
    return [evaluator.row(p) for p in Space(many)]


def test_the_same_rows_on_one_process_and_many(values: dict[str, Any], tmp_path: Path) -> None:
    one = mtia_emu.sweep(values, jobs=0)
    two = mtia_emu.sweep(values, tmp_path / "s.db", jobs=2)
    assert one == two and [r["status"] for r in one] == ["failed", "ok", "ok", "failed", "ok", "excluded"]
    frame = pandas.DataFrame(one)
    assert len(frame) == 6 and frame["seconds"].notna().sum() == 3


def test_rows_tell_their_progress(values: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    mtia_emu.sweep(
        values, tmp_path / "s.db", jobs=0, progress=lambda done, total, row: seen.append((done, total))
    )
    assert seen == [(i, 6) for i in range(7)]
    mtia_emu.sweep(
        values,
        tmp_path / "s.db",
        jobs=0,
        resume=True,
        progress=lambda done, total, row: seen.append((done, total)),
    )
    assert seen[7:] == [(6, 6)]


def pids(pool: Pool) -> Iterator[int]:
    return (w.process.pid for w in pool.workers if w is not None)


def test_workers_that_die_lose_no_point(many: Any, here: list[Row]) -> None:
    pool = Pool(make_job(many), iter(Space(many)), 2, Limits(retries=50))
    rows, killed = [], 0
    try:
        for row in pool.rows():
            rows.append(row)
            if len(rows) in (6, 14):
                for pid in list(pids(pool)):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    finally:
        pool.stop()
    assert killed >= 3 and sorted(rows, key=lambda r: r.index) == here


def test_a_worker_that_hangs_is_ended_and_its_point_done_again(many: Any, here: list[Row]) -> None:
    pool = Pool(make_job(many), iter(Space(many)), 1, Limits(timeout_s=1.5, retries=50))
    rows, stopped = [], 0
    try:
        for row in pool.rows():
            rows.append(row)
            if len(rows) == 5:
                for pid in pids(pool):
                    os.kill(pid, signal.SIGSTOP)
                    stopped += 1
    finally:
        pool.stop()
    assert stopped == 1 and sorted(rows, key=lambda r: r.index) == here


def test_a_point_that_no_attempt_gives_a_row_for_is_failed_with_the_reason(
    make: Any, monkeypatch: Any
) -> None:
    spec = make(set={"dram.channels": [1]}, constraints=[])
    monkeypatch.setattr("mtia_emu.sweeps.worker.START_SECONDS", 0.0)
    (row,) = on_cores(make_job(spec), iter(Space(spec)), 1, Limits(timeout_s=0.05, retries=1))
    assert (row.status, row.reason) == ("failed", "no result after 0.05 s (2 attempts)")
    assert row.params == {"dram.channels": 1}


def test_a_worker_out_of_memory_is_recorded(make: Any) -> None:
    spec = make(set={"dram.channels": [1]}, constraints=[])
    (row,) = on_cores(make_job(spec), iter(Space(spec)), 1, Limits(memory_bytes=1 << 20, retries=0))
    assert row.status == "failed" and row.reason.endswith("(1 attempt)")
    assert "memory" in row.reason or "killed by" in row.reason or "exit code" in row.reason


def test_points_are_asked_for_as_they_are_needed(make: Any) -> None:
    spec = make(set={"dram.channels": "1..100 step 1", "clock_hz": "1e9..1.01e9 step 1e5"}, constraints=[])
    taken = 0

    def points() -> Iterator[Any]:
        nonlocal taken
        for point in Space(spec):
            taken += 1
            yield point

    rows = on_cores(make_job(spec), points(), 1, Limits())
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert 0 < taken <= 2 * local.SPAN


def command(*words: str) -> subprocess.Popen[bytes]:
    program = "import sys; from mtia_emu.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def rows_in(store: Path) -> int:
    """Return how many rows a sweep has written so far."""
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as file:
            return int(file.execute("select count(*) from rows").fetchone()[0])
    except sqlite3.Error:  # not there yet
        return 0


def test_a_sweep_that_is_killed_goes_on_where_it_was(cli: Any, product: Path, tmp_path: Path) -> None:
    """Killed with some rows written and resumed: the rows are those of a sweep that nobody killed."""
    ranges = {**MANY, "clock_hz": "1e9..1.4e9 step 1e8"}
    sets = [word for key, value in ranges.items() for word in ("--set", f"{key}={value}")]
    base = ["sweep", "--model", f"{product},name=product", "--chip", "tiny", *sets]
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    assert cli(*base, "-o", whole, "--jobs", 0).exit_code == 0
    run = command(*base, "-o", str(parts), "--resume", "--jobs", "1")
    until(lambda: run.poll() is not None or rows_in(parts) > 0)
    run.kill()
    run.communicate()
    assert cli(*base, "-o", parts, "--resume", "--jobs", 2).exit_code == 0
    for name, store in (("whole", whole), ("parts", parts)):
        assert cli("report", store, "--csv", tmp_path / f"{name}.csv").exit_code == 0
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "parts.csv").read_bytes()
    assert (tmp_path / "whole.csv").read_text().count("\n") == 151


def test_workers_end_with_the_sweep_that_was_killed(product: Path, tmp_path: Path) -> None:
    run = command(
        "sweep", "--model", str(product), "--chip", "tiny", "--gpu", "none", "-o", str(tmp_path / "s.db"),
        "--set", "clock_hz=1e9..2e9 step 1e5", "--jobs", "2",
    )  # fmt: skip
    children: list[int] = []

    def started() -> bool:
        found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=False)
        children[:] = map(int, found.stdout.split())
        return len(children) == 2

    until(started, 0.1)
    run.kill()
    run.communicate()
    until(lambda: not any(map(_running, children)))  # one that is still starting ends when it has started


def until(holds: Callable[[], bool], pause_s: float = 0.01) -> None:
    """Wait until something holds; that it never will is found after a quarter of an hour."""
    for _ in range(int(900 / pause_s)):
        if holds():
            return
        time.sleep(pause_s)
    pytest.fail("it never held")


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_nothing_is_left_where_the_model_cannot_be_compiled(values: dict[str, Any], tmp_path: Path) -> None:
    values["model"] = [{"model": "zoo:llama-tiny", "dims": {"sequence": 3}}]
    with pytest.raises(UserError, match="sequence"):
        mtia_emu.sweep(values, tmp_path / "s.db", jobs=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["tpe", "nsga2"])
def test_a_guided_search_is_the_same_on_any_number_of_processes_and_resumed(
    values: dict[str, Any], tmp_path: Path, method: str
) -> None:
    values |= {
        "method": method, "points": 8, "batch": 4, "constraints": ["dram.channels <= 6"], "seed": 3,
        "set": {"dram.channels": "1..8", "dram.channel_bytes_per_s": "1e9..9e9 log",
                "sram.bytes": [65536, 262144]},
    }  # fmt: skip
    path = tmp_path / "s.db"
    whole = mtia_emu.sweep(values, jobs=0)
    assert len(whole) == 8 and all(r["dram.channels"] <= 6 for r in whole)
    assert len({(r["dram.channels"], r["dram.channel_bytes_per_s"], r["sram.bytes"]) for r in whole}) == 8

    def stop(done: int, total: int, row: Any) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mtia_emu.sweep(values, path, jobs=0, progress=stop)
    assert mtia_emu.sweep(values, path, jobs=2, resume=True) == whole


def test_a_guided_search_ends_where_nothing_new_is_left(values: dict[str, Any]) -> None:
    values |= {
        "method": "tpe",
        "points": 50,
        "batch": 4,
        "constraints": [],
        "set": {"dram.channels": [1, 2, 3]},
    }
    assert sorted(r["dram.channels"] for r in mtia_emu.sweep(values, jobs=0)) == [1, 2, 3]


@pytest.fixture
def scheduler() -> Iterator[Any]:
    """Give a dask scheduler and two workers, processes of their own on the loopback."""
    pytest.importorskip("distributed")
    run = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    started = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True)]
    address = next(
        line.split()[-1] for line in started[0].stderr or () if "tcp://" in line and "Scheduler at" in line
    )
    threading.Thread(target=lambda: [None for _ in started[0].stderr or ()], daemon=True).start()

    def worker() -> subprocess.Popen[str]:
        words = [
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
        ]
        started.append(subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL, text=True))
        return started[-1]

    worker.scheduler = started[0]  # type: ignore[attr-defined]
    try:
        yield address, worker
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_cluster_whose_workers_are_killed_gives_the_same_rows(
    scheduler: Any, many: Any, here: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtia_emu.sweeps.cluster import on_cluster

    monkeypatch.setattr("mtia_emu.sweeps.cluster.CONNECT_SECONDS", 900)
    address, worker = scheduler
    alive = [worker(), worker()]
    rows = []
    for row in on_cluster(make_job(many), iter(Space(many)), Limits(), scheduler=address):
        rows.append(row)
        if len(rows) in (5, 12):
            alive.append(worker())
            alive.pop(0).kill()
    assert sorted(rows, key=lambda r: r.index) == here


def test_a_scheduler_that_does_not_answer_is_told(
    values: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("mtia_emu.sweeps.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(UserError, match="no dask scheduler answers there within 1 s"):
        mtia_emu.sweep(values, tmp_path / "s.db", scheduler="tcp://127.0.0.1:9")
    assert not [*tmp_path.glob("s.db*")]  # a store without a row is of no use
    with pytest.raises(UserError, match="no dask scheduler answers"):
        mtia_emu.sweep(values, scheduler="nonsense://x")


def test_dask_says_nothing_of_its_own_and_leaves_no_folder(
    product: Path, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    values = {"chip": "tiny", "model": [{"model": str(product)}]}
    log, seen = logging.getLogger("distributed.client"), []
    client = distributed.Client

    def noisy(cluster: Any) -> Any:
        log.error("of its own")
        seen.append([path.name for path in tmp_path.glob("*/*")])
        return client(cluster)

    monkeypatch.setattr(distributed, "Client", noisy)
    log.addHandler(caplog.handler)
    level, kept = log.level, {*tmp_path.iterdir()}
    assert len(mtia_emu.sweep(values, workers=1)) == 1
    assert any("dask-scratch-space" in names for names in seen)
    assert {*tmp_path.iterdir()} == kept
    log.removeHandler(caplog.handler)
    assert not caplog.records and log.level == level


@pytest.mark.deep
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_lost_is_told_and_the_sweep_goes_on_later(
    scheduler: Any, product: Path, tmp_path: Path, blow: signal.Signals, monkeypatch: Any
) -> None:
    address, worker = scheduler
    worker()
    monkeypatch.setattr("mtia_emu.sweeps.cluster.CONNECT_SECONDS", 2)
    monkeypatch.setattr("mtia_emu.sweeps.cluster.ANSWER_SECONDS", 2)
    values = {"chip": "tiny", "model": [{"model": str(product)}], "set": {"clock_hz": "1e9..2e9 step 1e8"}}

    def strike(done: int, total: int, row: Any) -> None:
        if done == 4:
            worker.scheduler.send_signal(blow)

    with pytest.raises(UserError, match=r"scheduler of the sweep has gone.*--resume"):
        mtia_emu.sweep(values, tmp_path / "s.db", scheduler=address, progress=strike)
    assert mtia_emu.sweep(values, tmp_path / "s.db", jobs=0, resume=True) == mtia_emu.sweep(values, jobs=0)


@pytest.mark.deep
def test_a_local_cluster_gives_the_same_rows_and_listens_to_nobody_else(
    values: dict[str, Any], monkeypatch: Any
) -> None:
    distributed = pytest.importorskip("distributed")
    seen: list[Any] = []
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda cluster: seen.append(cluster) or client(cluster))
    found = mtia_emu.sweep(values, workers=2, progress=lambda *_: seen.extend(listening()))
    assert found == mtia_emu.sweep(values, jobs=0)
    assert seen[0].scheduler_address.startswith("inproc://")
    assert {address.partition(":")[0] for address in seen[1:]} <= {"0100007F"}


def listening() -> list[str]:
    """Return the addresses, in hexadecimal, at which this process waits for connections."""
    mine = [os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2] for fd in os.listdir("/proc/self/fd")]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [words[1] for words in lines if words[3] == "0A" and f"socket:[{words[9]}]" in mine]


class Client:
    """A connection to a scheduler, as far as a sweep asks it."""

    def __init__(self, status: str, answers: bool) -> None:
        self.status, self.answers, self.closed = status, answers, False

    def sync(self, ask: Any) -> None:
        if not self.answers:
            raise OSError("the connection is closed")

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.mark.parametrize(("status", "answers"), [("closed", True), ("connecting", True), ("running", False)])
def test_a_scheduler_that_is_lost_is_not_waited_for(
    many: Any, monkeypatch: Any, status: str, answers: bool
) -> None:
    from mtia_emu.sweeps import cluster

    monkeypatch.setattr(cluster, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    client = Client(status, answers)
    with pytest.raises(UserError, match="scheduler of the sweep has gone"):
        cluster._Running(client, make_job(many), Limits()).next()
    assert client.closed
