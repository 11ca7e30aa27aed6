"""Run a sweep: points to workers, rows to the store, until every point has its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ..errors import UserError
from .evaluate import Evaluator, Job, make_job, reference
from .local import in_process, on_cores
from .row import Row, record
from .space import Point, Space, check_size, size
from .spec import GUIDED, Spec, load_spec, make_spec
from .store import MEMORY, Store, check_free, create, resume
from .worker import Limits

Progress = Callable[[int, int, Row | None], None]


class RunWords(TypedDict, total=False):
    """The fields of a `SweepRun` as keywords of a function, but for the store."""

    resume: bool
    jobs: int | None
    workers: int
    scheduler: str | None
    timeout_s: float
    memory_bytes: int
    retries: int
    consent: bool


@dataclass(frozen=True)
class SweepRun:
    """How a sweep is run: the file that keeps its rows, the processes that evaluate its points, their limits.

    Without a `store` rows are kept in memory; with `resume` one that is there is gone on with. Points run on
    `jobs` processes of this machine (None: one a core; 0: in this process), on `workers` of a local dask
    cluster, or on the cluster at `scheduler`. `consent` lets a sweep of very many points begin.
    """

    store: str | Path | None = None
    resume: bool = False
    jobs: int | None = None
    workers: int = 0
    scheduler: str | None = None
    timeout_s: float = Limits.timeout_s
    memory_bytes: int = Limits.memory_bytes
    retries: int = Limits.retries
    consent: bool = False

    @property
    def limits(self) -> Limits:
        """Return what an attempt at a point may take, and how many attempts there are."""
        return Limits(self.timeout_s, self.memory_bytes, self.retries)

    @property
    def processes(self) -> int:
        """Return on how many processes of this machine points run; 0: in this one."""
        return os.cpu_count() or 1 if self.jobs is None else self.jobs


def sweep(
    spec: Spec | Mapping[str, Any] | str | Path,
    store: str | Path | None = None,
    *,
    progress: Progress | None = None,
    **settings: Unpack[RunWords],
) -> list[dict[str, Any]]:
    """Evaluate every point of a sweep and return its rows, one mapping a point, ready for a data frame.

    `spec` is a mapping, the name of a TOML file, or a checked `Spec`. With `store` the rows are kept in that
    file; `settings` are the other fields of `SweepRun` (`resume`, `jobs`, `workers`, ...). Raises `UserError`
    for what is wrong with the request; a point that cannot be is a row of status "failed".
    """
    if isinstance(spec, str | Path):
        spec = make_spec(load_spec(spec), f"spec {spec}")
    elif not isinstance(spec, Spec):
        spec = make_spec(spec)
    with run(spec, SweepRun(store, **settings), progress) as rows:
        return [record(row, spec) for row in rows.rows()]


def run(spec: Spec, settings: SweepRun, progress: Progress | None = None) -> Store:
    """Evaluate the points that have no row yet and return the store, open, with all of them in it."""
    check_size(spec, settings.consent)
    job = make_job(spec)
    evaluator = Evaluator(job)
    path = settings.store
    fresh = path is not None and not Path(path).exists()
    store = _open(path, job, evaluator, settings.resume)
    try:
        steps = _guided if spec.method in GUIDED else _known
        for row in steps(store, job, settings, evaluator, progress or _silent):
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


def _known(
    store: Store, job: Job, settings: SweepRun, evaluator: Evaluator, progress: Progress
) -> Iterator[Row]:
    """Yield the missing rows of a sweep whose points are known beforehand."""
    space, have = Space(job.spec), store.done()
    count, total = len(have), len(space)
    progress(count, total, None)
    missing = (point for point in space if point.index not in have)
    for row in _rows(job, missing, settings, evaluator, total - count):
        count += 1
        yield row
        progress(count, total, row)


def _guided(
    store: Store, job: Job, settings: SweepRun, evaluator: Evaluator, progress: Progress
) -> Iterator[Row]:
    """Yield the missing rows of a guided search; those that are there are told to it again."""
    from .search import Search

    search, have = Search(job.spec, evaluator.excluded), {row.index: row for row in store.rows()}
    total = size(job.spec)
    progress(len(have), total, None)
    count = len(have)
    while batch := search.ask():
        missing = [point for point in batch if point.index not in have]
        for row in _rows(job, iter(missing), settings, evaluator, len(missing)):
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


def _rows(
    job: Job, points: Iterator[Point], settings: SweepRun, evaluator: Evaluator, count: int
) -> Iterator[Row]:
    if not count:
        return iter(())
    limits = settings.limits
    if settings.scheduler is not None or settings.workers:
        from .cluster import on_cluster

        return on_cluster(job, points, limits, scheduler=settings.scheduler, workers=settings.workers)
    if settings.processes == 0:
        return in_process(job, points, evaluator)
    return on_cores(job, points, min(settings.processes, count), limits)
