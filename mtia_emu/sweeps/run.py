"""Run a sweep: points to workers, rows to the store, until every point has its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .evaluate import Evaluator, Job, make_job, reference
from .local import in_process, on_cores
from .row import Row, record
from .space import Point, Space, check_size, size
from .spec import GUIDED, Spec, load_spec, make_spec
from .store import MEMORY, Store, check_free, create, resume
from .worker import Limits

Progress = Callable[[int, int, Row | None], None]


@dataclass(frozen=True)
class Where:
    """Where points are evaluated: on `jobs` processes of this machine (0: in this process), or on a cluster.

    `scheduler` is the address of a dask scheduler, `workers` the size of a local dask cluster.
    """

    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    workers: int = 0
    scheduler: str | None = None
    limits: Limits = field(default_factory=Limits)


def sweep(
    spec: Spec | Mapping[str, Any] | str | Path,
    store: str | Path | None = None,
    *,
    resume: bool = False,
    jobs: int | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    timeout_s: float = 600.0,
    memory_bytes: int = 0,
    retries: int = 2,
    consent: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Evaluate every point of a sweep and return its rows, one mapping a point, ready for a data frame.

    `spec` is a mapping, the name of a TOML file, or a checked `Spec`. With `store` the rows are kept in that
    file
    (`resume`: go on with it). Points run on `jobs` processes of this machine (default: one a core; 0: in this
    process), on `workers` of a local dask cluster, or on the cluster at `scheduler`. Raises `UserError` for
    what is wrong with the request; a point that cannot be is a row of status "failed".
    """
    if isinstance(spec, str | Path):
        spec = make_spec(load_spec(spec), f"spec {spec}")
    elif not isinstance(spec, Spec):
        spec = make_spec(spec)
    limits = Limits(timeout_s, memory_bytes, retries)
    where = Where(os.cpu_count() or 1 if jobs is None else jobs, workers, scheduler, limits)
    with run(spec, store, where, again=resume, consent=consent, progress=progress) as done:
        return [record(row, spec) for row in done.rows()]


def run(
    spec: Spec,
    path: str | Path | None,
    where: Where,
    *,
    again: bool = False,
    consent: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Evaluate the points that have no row yet and return the store, open, with all of them in it."""
    check_size(spec, consent)
    job = make_job(spec)
    evaluator = Evaluator(job)
    fresh = path is not None and not Path(path).exists()
    store = _open(path, job, evaluator, again)
    try:
        steps = _guided if spec.method in GUIDED else _known
        for row in steps(store, job, where, evaluator, progress or _silent):
            store.put(row)
        store.commit()
    except BaseException:
        if fresh:
            store.remove_empty()
        store.close()
        raise
    return store


def _silent(done: int, total: int, row: Row | None) -> None:
    pass


def _open(path: str | Path | None, job: Job, evaluator: Evaluator, again: bool) -> Store:
    """Return the store to fill. The base chip runs first: a model that cannot be compiled costs no store."""

    def facts() -> dict[str, Any]:
        base, gpu = reference(evaluator)
        return {"base": asdict(base), "gpu": gpu}

    name = MEMORY if path is None else os.fspath(path)
    if name != MEMORY and again and Path(name).exists():
        return resume(name, job, facts)
    check_free(name)
    return create(name, job, facts())


def _known(store: Store, job: Job, where: Where, evaluator: Evaluator, progress: Progress) -> Iterator[Row]:
    """Yield the missing rows of a sweep whose points are known beforehand."""
    space, have = Space(job.spec), store.done()
    count, total = len(have), len(space)
    progress(count, total, None)
    missing = (point for point in space if point.index not in have)
    for row in _rows(job, missing, where, evaluator, total - count):
        count += 1
        yield row
        progress(count, total, row)


def _guided(store: Store, job: Job, where: Where, evaluator: Evaluator, progress: Progress) -> Iterator[Row]:
    """Yield the missing rows of a guided search; those that are there are told to it again."""
    from .search import Search

    search, have = Search(job.spec, evaluator.excluded), {row.index: row for row in store.rows()}
    total = size(job.spec)
    progress(len(have), total, None)
    count = len(have)
    while batch := search.ask():
        missing = [point for point in batch if point.index not in have]
        for row in _rows(job, iter(missing), where, evaluator, len(missing)):
            have[row.index] = row
            count += 1
            yield row
            progress(count, total, row)
        _check_same(store, batch, have)
        search.tell(batch, [have[point.index] for point in batch])


def _check_same(store: Store, batch: list[Point], have: Mapping[int, Row]) -> None:
    """Refuse rows that the search would not have asked for: another version of its library made them."""
    for point in batch:
        if any(have[point.index].params.get(key) != value for key, value in point.params.items()):
            raise UserError(
                f"store {store.path}: point {point.index} is not the one that this version of the "
                f"search library "
                "proposes; resume with the version that began it, or begin a new store"
            )


def _rows(job: Job, points: Iterator[Point], where: Where, evaluator: Evaluator, count: int) -> Iterator[Row]:
    if not count:
        return iter(())
    if where.scheduler is not None or where.workers:
        from .cluster import on_cluster

        return on_cluster(job, points, where.limits, scheduler=where.scheduler, workers=where.workers)
    if where.jobs == 0:
        return in_process(job, points, evaluator)
    return on_cores(job, points, min(where.jobs, count), where.limits)
