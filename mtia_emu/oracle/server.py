"""onnxruntime in a process of its own: models and inputs come on stdin, outputs go to stdout.

It is run by its path (`python -P server.py PARENT`) and imports nothing of ours: neither the folder in which
the user works nor ours is on its path. A message is a line of JSON and then the bytes that it counts:
nothing in it is ever executed, as unpickling it could be.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

import ml_dtypes  # noqa: F401  (NumPy then knows the names of narrow types)
import numpy as np

Array = np.ndarray[Any, Any]
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "ORT_TELEMETRY_DISABLED": "1"}  # read when it is imported, not later
CPU_SECONDS = 3600  # of one model: what takes longer has no end


def send(to: IO[bytes], head: Mapping[str, Any], arrays: Mapping[str, Array], body: bytes = b"") -> None:
    """Write a message: `head`, then arrays by name, then further bytes."""
    whole = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    kinds = [(name, x.dtype.name, x.shape) for name, x in whole.items()]
    to.write(json.dumps({**head, "arrays": kinds, "bytes": len(body)}).encode() + b"\n")
    for x in whole.values():
        to.write(x.reshape(-1).view(np.uint8).data)
    to.write(body)
    to.flush()


def receive(source: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array], bytes]:
    """Return a message as `send` wrote it; raise `EOFError` where it ends too early."""
    head = json.loads(_read(source.readline(), -1))
    arrays = {}
    for name, kind, shape in head["arrays"]:
        x = np.empty(shape, kind)
        flat = memoryview(x.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        if source.readinto(flat) != len(flat):  # type: ignore[attr-defined]
            raise EOFError
        arrays[name] = x
    return head, arrays, _read(source.read(head["bytes"]), head["bytes"])


def _read(data: bytes, count: int) -> bytes:
    if len(data) < count or (count < 0 and not data.endswith(b"\n")):
        raise EOFError
    return data


def run(model: bytes | str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the model's outputs by name: each node by its own kernel, in one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")  # products of bytes without saturation
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    known = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, {k: v for k, v in inputs.items() if k in known})
    return dict(zip(names, map(_array, values), strict=True))


def _array(value: object) -> Array:
    """Return a value as an array; a list of maps, as ZipMap gives, is a row of each map's values."""
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return np.asarray([list(v.values()) for v in value], np.float32)
    return np.asarray(value)


def answer(source: IO[bytes], sink: IO[bytes]) -> None:
    """Take one model and answer it with its outputs, or with the first line of what went wrong."""
    head, inputs, body = receive(source)
    _bound(head["memory"])
    try:
        outputs = run(head["path"] or body, inputs)
        if odd := [name for name, x in outputs.items() if x.dtype.hasobject]:
            raise TypeError(f"output {odd[0]} is not of numbers")
    except Exception as error:  # onnxruntime's own errors have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        send(sink, {"error": first}, {})
    else:
        send(sink, {"error": ""}, outputs)


def _bound(memory_bytes: int) -> None:
    """Have the system end this process when the next model takes more than it may, and leave no dump."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        for what, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, int(used) + CPU_SECONDS),
            (resource.RLIMIT_DATA, memory_bytes),
        ):
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, where it can (Linux)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.name == "posix" and os.getppid() != parent:
        raise EOFError


def main() -> None:
    """Answer models until there are no more."""
    _die_with(int(sys.argv[1]))
    os.environ.update(QUIET)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        answer(source, sink)


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        main()
