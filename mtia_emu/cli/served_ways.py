"""Many ways to serve: their step tables once each, then each way; what is done is kept, so it can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .output import progress

if TYPE_CHECKING:
    from ..serving.load import Load
    from ..serving.simulate import Service
    from ..serving.step_table import GroupedSteps

Flags = dict[str, Any]
Mapper = Callable[..., Any]
TABLE_FLAGS = (
    *("chip", "settings", "gpu", "system", "parallel", "dtype", "context", "table"),
    *("token_budget", "max_sequences"),
)  # what a step table is made by
ANSWER_FLAGS = ("slo", "rate", "bounds")  # what is asked of a service and a load
FOLDER, MOST_WAYS_KEPT, MOST_BYTES = "ways", 4096, 1 << 22
CONNECT_S = 10


def all_served(
    make: Callable[[str, Flags], GroupedSteps],
    serve: Callable[[GroupedSteps, Flags], dict[str, Any]],
    model: str,
    each: Sequence[Flags],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Return how each way went, as JSON: first the tables of all are made, each once, then all are served.

    Answers are the same wherever they are computed: here, in `workers` processes, or on a dask cluster.
    """
    machines = [tuple(repr(flags[name]) for name in TABLE_FLAGS) for flags in each]
    first = dict(zip(machines, each, strict=True))
    with _mapper(min(workers, len(each)), scheduler) as mapper:
        made = _each("tables", mapper, make, [(model, f) for f in first.values()])
        tables = dict(zip(first, made, strict=True))
        jobs = [(tables[machine], flags) for machine, flags in zip(machines, each, strict=True)]
        return _each("ways", mapper, serve, jobs)


def kept_way(
    service: Service, load: Load, flags: Flags, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what `compute` does, from disk where the same code has served the same before.

    The key is of all that the answer depends on: the step table, the rules, the requests, what is asked.
    """
    from ..files import disk_cache

    place = disk_cache.folder(FOLDER)
    if place is None:
        return compute()
    file = place / _key(service, load, flags)
    content = disk_cache.read(file, MOST_BYTES)
    if content is not None:
        value: dict[str, Any] = json.loads(content)
        return value
    value = compute()
    disk_cache.write(file, json.dumps(value).encode())
    disk_cache.trim(place, MOST_WAYS_KEPT)
    return value


def _key(service: Service, load: Load, flags: Flags) -> str:
    from ..reuse.code import code_digest
    from ..serving.step_table_file import as_json

    asked = [flags[name] for name in ANSWER_FLAGS]
    known = b"" if load.known_tokens is None else load.known_tokens.tobytes()
    words = (code_digest(), service, asked, load.name, load.concurrency, load.piece_tokens, load.prefixes)
    digest = hashlib.sha256(repr(words).encode())
    digest.update(json.dumps(as_json(service.table)).encode())  # type: ignore[arg-type]
    for array in (load.arrival_s, load.input_tokens, load.output_tokens):
        digest.update(array.tobytes())
    digest.update(known)
    return digest.hexdigest()[:32]


@contextmanager
def _mapper(workers: int, scheduler: str | None) -> Iterator[Mapper]:
    """Give what maps a function over arguments, and gives results in their order."""
    from ..processes import pool

    if scheduler is not None:
        with _cluster(scheduler) as client:
            yield client.get_executor(pure=False).map
    elif workers > 1:
        with pool(workers) as processes:
            yield processes.map
    else:
        yield map


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "a cluster needs dask.distributed: pip install 'mtia-emu[cluster]'; or leave out --scheduler"
        ) from None
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {address[:80]}: no dask scheduler answers there within {CONNECT_S} s "
            f"({type(error).__name__}); start one with `dask scheduler`"
        ) from None
    with client:
        yield client


def _each(stage: str, mapper: Mapper, job: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Any:
    """Return what `job` gives for each arguments, in their order."""
    out: list[Any] = []
    with progress() as tick:
        for one in mapper(job, *zip(*arguments, strict=True)):
            out.append(one)
            if tick:
                tick(stage, len(out), len(arguments))
    return out
