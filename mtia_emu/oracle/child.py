"""The process that runs onnxruntime for this one: started when it is needed, started again when it died."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from .. import settings
from ..errors import UserError
from ..processes import environment
from .server import QUIET, Array, receive, send

SERVER = Path(__file__).with_name("server.py")
ITSELF = 1 << 30  # bytes that onnxruntime takes before a model is there


class Died(Exception):
    """The process ended before it answered; the message says how."""


class Refused(Exception):
    """onnxruntime does not run the model; the message is the first line of its own."""


class Child:
    """One process that runs models, one after another. It ends with this one."""

    def __init__(self) -> None:
        self.owner, self.served = os.getpid(), 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER), str(self.owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if settings.integer(settings.DEBUG) else subprocess.DEVNULL,
            env=environment() | QUIET,
            cwd=SERVER.anchor,
            start_new_session=True,  # Ctrl-C is this process's
        )

    def ask(self, model: bytes | Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return a model's outputs by name; raise `Refused`, or `Died`, after which it is of no use."""
        assert self.process.stdin and self.process.stdout
        if odd := [name for name, x in inputs.items() if x.dtype.hasobject]:
            raise Refused(f"input {odd[0]} is not of numbers")
        path, body = (str(model.resolve()), b"") if isinstance(model, Path) else ("", model)
        head = {"path": path, "memory": settings.integer(settings.MEMORY) + ITSELF}
        try:
            send(self.process.stdin, head, inputs, body)
            told, outputs, _ = receive(self.process.stdout)
        except (EOFError, BrokenPipeError):
            self.close(patience_s=10)  # it is about to end by itself: how is worth knowing
            raise Died(_how(self.process.returncode)) from None
        except BaseException:  # in the middle of a message
            self.close()
            raise
        self.served += 1
        if told["error"]:
            raise Refused(told["error"])
        return outputs

    def close(self, patience_s: float = 0) -> None:
        """End the process, if it is this one's and does not end by itself."""
        if self.owner != os.getpid():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet
                pipe.close()  # type: ignore[union-attr]


def _how(code: int) -> str:
    if code < 0:
        return f"it died of signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended with code {code}"


_lock = threading.Lock()
_children: list[Child] = []


def ask(model: bytes | Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs by name that onnxruntime gives for a model, on disk or in memory.

    Raises `Refused` where it does not run the model, `Died` where the model ends it, and `UserError` where it
    is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise UserError(
            "--check compares with onnxruntime, which is not installed: pip install 'mtia-emu[check]'"
        )
    with _lock:
        child = _current()
        try:
            return child.ask(model, inputs)
        except Died:
            _children.remove(child)
            if not child.served:
                raise
        return _current().ask(model, inputs)  # whatever ended it, this model may not have


def _current() -> Child:
    """Return the process of this one that is alive; start it where there is none."""
    for child in _children:
        if child.owner == os.getpid() and child.process.poll() is None:
            return child
    for child in _children:
        child.close()
    _children[:] = [Child()]
    return _children[0]


@atexit.register
def close() -> None:
    """End the process; the next question starts another."""
    for child in _children:
        child.close()
    _children.clear()
