"""The command line as a process: what it imports, prints where, repeats exactly, takes of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import mtia_emu

MAIN = "import sys; from mtia_emu.cli import main; sys.argv[0] = 'mtia-emu'; "
HEAVY = ["numpy", "onnx", "numba", "networkx", "pydantic", "rich", "onnxruntime", "ml_dtypes", "matplotlib"]
RUN = ["run", "zoo:dlrm-small", "--dim", "batch=8", "--check", "--json", "-"]
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def start(*args: object, env: dict[str, str] | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    words = [sys.executable, "-m", "mtia_emu.cli", *map(str, args)]
    return subprocess.run(words, text=True, check=False, env=os.environ | (env or {}), **how)


@pytest.mark.parametrize("args", ["['--help']", "['--version']", "['run', '--help']", "['tbe', '--help']"])
def test_help_and_version_import_nothing_heavy(args: str) -> None:
    ask = f"try:\n    main({args})\nexcept SystemExit as done:\n    assert not done.code\n"
    script = f"{MAIN}\n{ask}print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_run_needs_no_networkx() -> None:
    ask = "main(['run', 'zoo:llama-tiny'], standalone_mode=False)\n"
    script = f"{MAIN}\n{ask}assert 'networkx' not in sys.modules"
    env = os.environ | {"MTIA_EMU_ANSWERS": "0"}
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, env=env)


def test_json_alone_goes_to_stdout_and_nothing_to_stderr_in_a_pipe() -> None:
    done = start(*RUN)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["check"]["passed"]


def test_the_same_command_gives_the_same_bytes() -> None:
    first, other = (start(*RUN, env={"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2"))
    assert first == other and first


def test_the_same_program_gives_the_same_file(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        done = start(
            "compile", "zoo:llama-tiny", "-o", tmp_path / f"{seed}.mtia", env={"PYTHONHASHSEED": seed}
        )
        assert done.returncode == 0
    assert (tmp_path / "1.mtia").read_bytes() == (tmp_path / "2.mtia").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.mtia") as file:
        assert {info.date_time[0] for info in file.infolist()} == {1980}


def test_a_full_size_model_takes_little_memory() -> None:
    script = (
        f"{MAIN}import resource\n"
        "try:\n    main(['run', 'zoo:llama-3-8b', '--dim', 'seq=2048', '--chip', 'mtia-2i', '--json', '-'])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kilobytes = int(done.stderr) // (1024 if sys.platform == "darwin" else 1)
    assert kilobytes <= 2 << 20
    assert json.loads(done.stdout)["macs"] > 1e13


@needs_full
@pytest.mark.parametrize(
    "args",
    [
        ["chips"],
        ["--help"],
        RUN,
        pytest.param(["run", "zoo:llama-tiny"], marks=pytest.mark.deep),
        pytest.param(["show", "zoo:llama-tiny"], marks=pytest.mark.deep),
    ],
)
def test_a_full_disk_behind_stdout(args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = start(*args, stdout=full)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


@needs_full
@pytest.mark.parametrize(
    "flag", ["--outputs", *(pytest.param(f, marks=pytest.mark.deep) for f in ("--json", "--trace"))]
)
def test_a_full_disk_behind_a_file(flag: str) -> None:
    done = start("run", "zoo:dlrm-small", "--dim", "batch=2", "--check", flag, "/dev/full")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: cannot write '/dev/full': the disk is full"
    )


def test_a_reader_that_stops_reading() -> None:
    command = f"{sys.executable} -m mtia_emu.cli show zoo:llama-tiny --at program"
    pipe = f"{command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "0"


def test_a_terminal_without_our_letters() -> None:
    done = start("chips", "mtia-2i", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_terminal_shows_progress_on_stderr() -> None:
    import pty

    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "mtia_emu.cli", *RUN], stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the other end is closed
        pass
    out, _ = child.communicate()
    os.close(ours)
    assert json.loads(out)["check"]["passed"]
    assert b"execute" in seen


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8"},
    "no home": {"HOME": "", "XDG_CACHE_HOME": "relative"},
}


@pytest.mark.deep
@pytest.mark.parametrize("name", LOCALES)
def test_the_report_does_not_depend_on_where_the_command_runs(name: str, tmp_path: Path) -> None:
    chip = tmp_path / "chíp.toml"
    text = (Path(mtia_emu.__file__).parent / "machine" / "chips" / "tiny.toml").read_text(encoding="utf-8")
    chip.write_text(text + "# \u2603\n", encoding="utf-8")
    words = ("run", "zoo:dlrm-small", "--dim", "batch=2", "--chip", chip, "--json", "-")
    done, plain = start(*words, env=LOCALES[name], cwd=tmp_path), start(*words)
    assert (done.returncode, done.stdout) == (0, plain.stdout) and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [chip]


@pytest.mark.deep
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_process_that_is_killed_leaves_no_half_of_a_file(
    number: str, seconds: float, tmp_path: Path
) -> None:
    words = ["compile", "zoo:llama-tiny", "-o", "out.mtia"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{MAIN}main()", *words],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, number))
        process.wait()
    left = {path.name for path in tmp_path.iterdir()}
    if "out.mtia" in left:
        assert start("run", tmp_path / "out.mtia", "--gpu", "none").returncode == 0
    if number == "SIGTERM":  # SIGKILL leaves a folder, which the next start removes
        assert left <= {"out.mtia"}


def test_a_program_seldom_looks_for_circles_of_objects() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0])); " + MAIN
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.argv[1:] = ['chips']; main()"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "100000"
