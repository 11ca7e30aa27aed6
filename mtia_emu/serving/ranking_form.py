"""Recommendation services as TOML files, checked before anything runs.

A model's jobs have times by the candidates of a batch: given, or those of a `graph` on a `machine`, each
chip's shard a part of all its look-ups.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UserError
from ..files.toml import file_text, own_faults, parse, tuples
from .ranking import JobTimes, RankingJobs, RankingLoad, RankingModel, RankingServer, RankingService

MOST_MODELS, MOST_CHIPS, MOST_REQUESTS = 64, 1024, 1_000_000

NOT_OF_MODELS = ("candidates", "graph", "machine")
JobsOf = Callable[[str, str, tuple[int, ...]], RankingJobs]

_Seconds = Annotated[float, Field(ge=0, le=1e6)]
_Many = Annotated[int, Field(ge=1, le=1 << 30)]
_Share = Annotated[float, Field(ge=0, le=1e3)]
_Bytes = Annotated[float, Field(ge=0, le=1e18)]
_Times = Annotated[tuple[_Seconds, ...], Field(min_length=1, max_length=64)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Model(_Form):
    name: Annotated[str, Field(max_length=200)]
    share: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    candidates: Annotated[tuple[_Many, ...], Field(min_length=1, max_length=64)]
    graph: Annotated[str, Field(max_length=4096)] | None = None
    machine: Annotated[str, Field(max_length=4096)] | None = None
    remote_s: _Times | None = None
    merge_s: _Times | None = None
    cold_remote_s: _Times | None = None
    cold_batches: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    remote_jobs: Annotated[int, Field(ge=1, le=64)] = 1
    in_turn: bool = True
    shards: Annotated[tuple[Annotated[float, Field(gt=0, le=1e3)], ...], Field(min_length=1)] = (1.0,)
    window_s: _Seconds = 0.0
    most_candidates: _Many = 1 << 30
    most_windows: _Many = 1 << 30
    input_bytes: _Bytes = 0.0
    pooled_bytes: _Bytes = 0.0
    preprocess_share: _Share = 0.0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        sizes = self.candidates
        if any(b <= a for a, b in pairwise(sizes)):
            raise ValueError("candidates do not rise strictly")
        given = [self.remote_s is not None, self.merge_s is not None]
        asked = [self.graph is not None, self.machine is not None]
        if (all(given), any(asked)) != (True, False) and (any(given), all(asked)) != (False, True):
            raise ValueError("right are remote_s and merge_s, or a graph and its machine")
        for name in ("remote_s", "merge_s", "cold_remote_s"):
            times = getattr(self, name)
            if times is not None and (len(times) != len(sizes) or list(times) != sorted(times)):
                raise ValueError(
                    f"{name} is not a time for each of candidates, none less than the one before"
                )
        return self

    def model(self, jobs_of: JobsOf) -> RankingModel:
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in NOT_OF_MODELS}
        times = {
            name: None if own[name] is None else JobTimes(self.candidates, own[name])
            for name in ("remote_s", "merge_s", "cold_remote_s")
        }
        if self.graph is not None and self.machine is not None:
            jobs = jobs_of(self.graph, self.machine, self.candidates)
            _check_room(self, jobs)
            times |= {"remote_s": jobs.remote_s, "merge_s": jobs.merge_s}
        return RankingModel(**(own | times))


def _check_room(model: _Model, jobs: RankingJobs) -> None:
    """Refuse a shard of the model that its chip has no room for."""
    largest = max(model.shards) * jobs.weight_bytes
    if largest > jobs.memory_bytes:
        raise UserError(
            f"model {model.name}: its largest shard is {largest / 1e9:.1f} GB, {model.machine} has "
            f"{jobs.memory_bytes / 1e9:.1f} GB (right: {jobs.least_chips()} chips or more, as many shards)"
        )


def no_jobs(graph: str, _machine: str, _candidates: tuple[int, ...]) -> RankingJobs:
    """Refuse a graph: here is nothing that runs it."""
    raise UserError(f"graph {graph!r}: its jobs are not timed here (right: remote_s and merge_s)")


class _Server(_Form):
    chips: Annotated[int, Field(ge=1, le=MOST_CHIPS)]
    order: Literal["arrival", "oldest"] = "arrival"
    hop_s: _Seconds = 0.0
    cores: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    host_bytes_per_s: _Bytes = 0.0
    network_bytes_per_s: _Bytes = 0.0


class _Load(_Form):
    rate_per_s: Annotated[float, Field(gt=0, le=1e9)] = 100.0
    requests: Annotated[int, Field(ge=100, le=MOST_REQUESTS)] = 10_000
    candidates: Annotated[float, Field(ge=1, le=1e9)]
    cv: Annotated[float, Field(ge=0, le=100)] = 0.0
    seed: Annotated[int, Field(ge=0, le=1 << 62)] = 0


class _Service(_Form):
    slo_s: Annotated[float, Field(gt=0, le=1e6)]
    server: _Server
    load: _Load
    model: Annotated[tuple[_Model, ...], Field(min_length=1, max_length=MOST_MODELS)]


def read_ranking(
    path: str | Path, settings: dict[str, object] | None = None, jobs_of: JobsOf = no_jobs
) -> tuple[RankingService, RankingLoad]:
    """Return the service of a TOML file and its load, `settings` (dotted keys) put over it.

    `model.KEY` is set of all models. `jobs_of` times the jobs of a graph on a machine at some batch sizes.

    Raises `UserError` for unknown keys, wrong values, and shards that find no chip, or no room on it.
    """
    values = parse(file_text(Path(path), "ranking service", ["a file of your own"]), str(path))
    for key, value in (settings or {}).items():
        _put(values, key, value, str(path))
    try:
        form = _Service.model_validate(tuples(values))
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(map(_fault, own_faults(error)[:3]))) from None
    service = RankingService(
        RankingServer(**form.server.model_dump()), tuple(m.model(jobs_of) for m in form.model), form.slo_s
    )
    return service, RankingLoad(**form.load.model_dump())


def _put(values: dict[str, object], key: str, value: object, where: str) -> None:
    head, _, last = key.rpartition(".")
    tables = values.get(head) if head else values
    tables = tables if isinstance(tables, list) else [tables]
    if not all(isinstance(t, dict) for t in tables):
        raise UserError(f"{where}: no table {head!r} to set {key!r} in (right: server, load, model)")
    for table in tables:
        table[last] = value  # type: ignore[index]


def _fault(error: Any) -> str:
    place = ".".join(map(str, error["loc"])) or "service"
    if error["type"] == "extra_forbidden":
        return f"unknown key {place!r}"
    if error["type"] == "missing":
        return f"key {place!r} is missing"
    seen = "" if error["type"] == "value_error" else f" (seen: {str(error['input'])[:60]})"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{seen}"
