"""A process that evaluates points for another, which may lose it: `python -P -m mtia_emu.sweeps.worker FD`.

It is started as a program of its own rather than forked: the caller's main module is not run again, threads
of the caller's libraries are not inherited, and a daemon may start it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from .. import processes, settings
from .evaluate import Job
from .row import Row
from .space import Point

KILL_SECONDS = 5.0
START_SECONDS = 60.0  # more for a worker's first point: libraries are loaded, code is compiled


@dataclass(frozen=True)
class Limits:
    """What one attempt at a point may take, and how many attempts there are after the first."""

    timeout_s: float = 600.0
    memory_bytes: int = 0  # of a worker; 0: no limit
    retries: int = 2


@dataclass(eq=False)
class Worker:
    """One worker process, seen from the caller."""

    job: Job
    limits: Limits
    connection: Connection = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    point: Point | None = None
    deadline: float = 0.0
    started: bool = False

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                processes.python(__name__, str(theirs.fileno())),
                env=processes.environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if settings.integer(settings.DEBUG) else subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the caller's: it stops the workers
            )
        self.connection = Connection(ours.detach())
        self._send((self.job, self.limits.memory_bytes, os.getpid()))

    def give(self, point: Point) -> None:
        """Have a point evaluated; its time runs from now on."""
        starting = 0.0 if self.started else START_SECONDS
        self.point, self.deadline = point, time.monotonic() + self.limits.timeout_s + starting
        self._send(point)

    def _send(self, value: Any) -> None:
        with contextlib.suppress(OSError):  # dead: found out when its answer is waited for
            self.connection.send(value)

    def answer(self) -> Row | str:
        """Return the row that is there to be received, or why there is none; a dead worker is not usable."""
        try:
            answer: Row | str = self.connection.recv()
        except (EOFError, OSError):
            return self._died()
        self.point, self.started = None, True
        return answer

    def _died(self) -> str:
        self.stop()
        code = self.process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the worker was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"the worker ended with exit code {code}"

    @property
    def remaining_s(self) -> float:
        """Return how long the point may still take."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process at once."""
        self.connection.close()
        try:
            self.process.wait(0.05)  # it ends by itself when its connection is closed and it is idle
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(KILL_SECONDS)


def serve(connection: Connection) -> None:
    """Evaluate points until the caller is gone."""
    from .evaluate import Evaluator

    job, memory_bytes, parent = connection.recv()
    processes.die_with(parent)
    if memory_bytes:
        import resource

        import onnx  # noqa: F401  (what is loaded later would fail to load)

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    evaluator = Evaluator(job)
    while True:
        point = connection.recv()
        try:
            answer: Row | str = evaluator.row(point)
        except (MemoryError, SystemError) as error:  # the latter from CPython's own code that got no memory
            evaluator = Evaluator(job)  # what was memoised is given up
            limit = f" (limit {memory_bytes} bytes)" if memory_bytes else ""
            answer = f"out of memory{limit}: {type(error).__name__}"
        except Exception as error:
            answer = f"internal error: {type(error).__name__}: {str(error)[:500]}"
        connection.send(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(int(sys.argv[1])))
