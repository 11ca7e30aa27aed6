"""Reading hostile files in a child process that is bounded in memory and time, and made anew when it dies."""

from __future__ import annotations

import os
import pickle
import random
import resource
import select
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mtia_emu.errors import UserError

from .mutate import Files

CPU_S = 10
MEMORY_BYTES = 1 << 30  # beyond what the process had before
HUNG_S = 3 * CPU_S  # of CPU, where no signal reaches Python: the process is ended
WALL_S = 600.0  # of one file, on however busy a machine
GOOD, REFUSED = "read", "refused"
Read = Callable[[Path, random.Random], None]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: read, refused, or a fault, by a short text that equal faults share."""

    number: int
    kind: str
    outcome: str
    detail: str = ""

    @property
    def fault(self) -> bool:
        """Return whether the tool is at fault."""
        return self.outcome not in (GOOD, REFUSED)


class TooLong(BaseException):
    """The file has had its time."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TooLong("".join(traceback.format_stack(frame)[-3:]))


def judged(read: Read, path: Path, rng: random.Random) -> tuple[str, str]:
    """Return the outcome of reading a file, and for a fault where it arose."""
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        read(path, rng)
        return GOOD, ""
    except UserError as error:
        return ("no memory", str(error)) if "out of memory" in str(error) else (REFUSED, "")
    except RecursionError:
        return REFUSED, ""
    except TooLong as error:
        return f"over {CPU_S} s", str(error)
    except MemoryError as error:
        return f"over {MEMORY_BYTES >> 20} MiB", _where(error)
    except Exception as error:
        return type(error).__name__, f"{_where(error)}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _where(error: BaseException) -> str:
    """Return the last lines of ours in a traceback: equal faults have equal ones."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(part in f.filename for part in ("mtia_emu/", "compiler/", "kernels/"))]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in (ours or frames)[:-4:-1])


def run(
    numbers: Iterable[int], files: Callable[[int], tuple[str, Files]], readers: dict[str, Read]
) -> Iterator[Verdict]:
    """Yield the verdict of each mutant, in order; `files` makes it by number."""
    pending = iter(numbers)
    number = next(pending, None)
    while number is not None:
        child = _Child(number, files, readers)
        try:
            while number is not None:
                verdict = child.ask(number)
                yield verdict
                number = next(pending, None)
                if child.dead:
                    break
        finally:
            child.close()


class _Child:
    """A forked process that reads one mutant after another; its memory cannot grow beyond the bound."""

    def __init__(
        self, first: int, files: Callable[[int], tuple[str, Files]], readers: dict[str, Read]
    ) -> None:
        down, self.questions = os.pipe()
        self.answers, up = os.pipe()
        self.files, self.dead = files, False
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.questions), os.close(self.answers)
            code = 1
            try:
                _serve(down, up, files, readers)
                code = 0
            finally:
                os._exit(code)
        os.close(down), os.close(up)

    def ask(self, number: int) -> Verdict:
        """Return the verdict of one mutant; of one that ends the process, how it ended."""
        os.write(self.questions, struct.pack("<q", number))
        ready = self._answered()
        data = _whole(self.answers) if ready else b""
        if data:
            return Verdict(number, *pickle.loads(data))
        self.dead = True
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        ended = (
            f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        )
        return Verdict(number, self.files(number)[0], "died" if ready else "hung", ended)

    def _answered(self) -> bool:
        """Return whether there is an answer, or its end, before the time is up."""
        began, cpu = time.monotonic(), _cpu_s(self.pid)
        while not select.select([self.answers], [], [], 1.0)[0]:
            if _cpu_s(self.pid) - cpu > HUNG_S or time.monotonic() - began > WALL_S:
                return False
        return True

    def close(self) -> None:
        """End the process."""
        os.close(self.questions), os.close(self.answers)
        if self.pid:
            os.waitpid(self.pid, 0)


def _whole(pipe: int) -> bytes:
    head = os.read(pipe, 4)
    if len(head) < 4:
        return b""
    data, size = b"", struct.unpack("<i", head)[0]
    while len(data) < size:
        more = os.read(pipe, size - len(data))
        if not more:
            return b""
        data += more
    return data


def _serve(down: int, up: int, files: Callable[[int], tuple[str, Files]], readers: dict[str, Read]) -> None:
    """Answer questions until there are no more."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    held = _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="mtia-emu-fuzz-") as folder:
        while len(head := os.read(down, 8)) == 8:
            number = struct.unpack("<q", head)[0]
            kind, made = files(number)
            answer = (kind, *judged(readers[kind], laid(Path(folder), made), random.Random(number)))
            data = pickle.dumps(answer)
            os.write(up, struct.pack("<i", len(data)) + data)


def laid(folder: Path, files: Files) -> Path:
    """Write files into a folder; return the path of the first."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


def _data_bytes() -> int:
    """Return the bytes of data that this process has, as the limit counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
