"""Step tables on disk: one JSON form, written by hand or by us, read without trusting it.

The form stands in `docs/reference/step-table-json.md`. `digest` is of all else in the file; one written by
hand may leave it out.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UserError
from ..files.json_file import read_json
from ..files.toml import own_faults, tuples
from ..files.writing import write_json
from .step_table import GroupedSteps, TableFacts
from .surfaces import ERROR_S, JOULES, SECONDS, Curve, Floats, MixedRatio, Surface

SCHEMA = "mtia-emu.steps.v1"
MAX_FILE_BYTES = 1 << 24
MOST_ANCHORS = 1 << 10  # of one direction
MOST_SIZE = 1 << 40
BANDS = ("seconds_band", "joules_band")
LONGEST = 1 << 12  # letters of a text


def _around_one(band: tuple[float, float]) -> tuple[float, float]:
    if not band[0] <= 1 <= band[1]:
        raise ValueError("a band is two factors, one at most 1 and one at least 1")
    return band


_Text = Annotated[str, Field(max_length=LONGEST)]
_Size = Annotated[int, Field(ge=0, le=MOST_SIZE)]
_Bytes = Annotated[int, Field(ge=0, le=1 << 62)]
_Cost = Annotated[float, Field(ge=0, le=1e9)]
_Sizes = Annotated[tuple[_Size, ...], Field(min_length=1, max_length=MOST_ANCHORS)]
_Ratio = Annotated[float, Field(gt=0, le=1e3)]
_Band = Annotated[tuple[_Ratio, _Ratio], AfterValidator(_around_one)]
_Row = tuple[_Cost, ...]
_Grid = tuple[_Row, ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _CurveFile(_Table):
    sizes: _Sizes
    seconds: _Row
    joules: _Row | None = None
    error_s: _Row | None = None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _rising("sizes", self.sizes)
        for name in ("seconds", "joules", "error_s"):
            _shaped(name, getattr(self, name), (len(self.sizes),))
        return self

    def curve(self) -> Curve:
        return Curve(np.asarray(self.sizes, float), _columns(self.seconds, self.joules, self.error_s))


class _SurfaceFile(_Table):
    x: _Sizes
    y: _Sizes
    seconds: _Grid
    joules: _Grid | None = None
    error_s: _Grid | None = None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _rising("x", self.x)
        _rising("y", self.y)
        for name in ("seconds", "joules", "error_s"):
            _shaped(name, getattr(self, name), (len(self.x), len(self.y)))
        return self

    def surface(self) -> Surface:
        values = _columns(self.seconds, self.joules, self.error_s)
        return Surface(np.asarray(self.x, float), np.asarray(self.y, float), values)


class _MixedFile(_Table):
    chunk_tokens: _Sizes
    past_tokens: _Sizes
    decodes: _Sizes
    context: _Sizes
    ratios: tuple[tuple[tuple[tuple[_Ratio, ...], ...], ...], ...]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        axes = (self.chunk_tokens, self.past_tokens, self.decodes, self.context)
        for name, axis in zip(("chunk_tokens", "past_tokens", "decodes", "context"), axes, strict=True):
            _rising(name, axis)
        _shaped("ratios", self.ratios, tuple(map(len, axes)))
        return self

    def ratio(self) -> MixedRatio:
        chunks, pasts, decodes, context = (
            np.asarray(x, float) for x in (self.chunk_tokens, self.past_tokens, self.decodes, self.context)
        )
        return MixedRatio((chunks, pasts, decodes, context), np.asarray(self.ratios))


class _TableFile(_Table):
    model_config = ConfigDict(title="step table")
    schema_: Annotated[str, Field(alias="schema")]
    machine: _Text
    model: _Text
    dtype: _Text = ""
    source: _Text = ""
    memory_bytes: Annotated[int, Field(gt=0, le=1 << 62)]
    weight_bytes: _Bytes
    kv_bytes_per_token: Annotated[int, Field(gt=0, le=1 << 40)]
    activation_bytes: _Bytes = 0
    idle_w: Annotated[float, Field(ge=0, le=1e9)] | None = None
    seconds_band: _Band = (1.0, 1.0)
    joules_band: _Band = (1.0, 1.0)
    linear: _CurveFile
    head: _CurveFile
    prefill: _SurfaceFile
    decode: _SurfaceFile
    mixed: _MixedFile | None = None
    digest: Annotated[str, Field(max_length=64)] | None = None

    def table(self) -> GroupedSteps:
        facts = TableFacts(
            *(self.machine, self.model, self.dtype, self.source),
            *(self.memory_bytes, self.weight_bytes, self.kv_bytes_per_token, self.activation_bytes),
            math.nan if self.idle_w is None else self.idle_w,
            *(self.seconds_band, self.joules_band),
        )
        return GroupedSteps(
            *(facts, self.linear.curve(), self.head.curve(), self.prefill.surface(), self.decode.surface()),
            None if self.mixed is None else self.mixed.ratio(),
        )


def _rising(name: str, sizes: tuple[int, ...]) -> None:
    if any(b <= a for a, b in pairwise(sizes)):
        raise ValueError(f"{name} do not rise strictly")


def _shaped(name: str, values: Any, shape: tuple[int, ...]) -> None:
    """Refuse nested rows of another shape; None has any."""
    if values is None:
        return
    if len(values) != shape[0]:
        raise ValueError(f"{name} has {len(values)} entries where {shape[0]} sizes are")
    for inner in values if len(shape) > 1 else ():
        _shaped(name, inner, shape[1:])


def _columns(seconds: Any, joules: Any, error_s: Any) -> Floats:
    s = np.asarray(seconds, float)
    j = np.full_like(s, math.nan) if joules is None else np.asarray(joules, float)
    e = np.zeros_like(s) if error_s is None else np.asarray(error_s, float)
    return np.stack([s, j, e], axis=-1)


def as_json(table: GroupedSteps) -> dict[str, Any]:
    """Return the JSON object of a table, its digest in it."""
    facts = table.facts
    out = {
        "schema": SCHEMA,
        **{k: v for k, v in vars(facts).items() if k not in ("idle_w", *BANDS)},
        "idle_w": _known(facts.idle_w),
        **{name: list(getattr(facts, name)) for name in BANDS},
        "linear": {"sizes": _whole(table.linear.sizes), **_named(table.linear.values)},
        "head": {"sizes": _whole(table.head.sizes), **_named(table.head.values)},
    }
    for name, surface in (("prefill", table.prefill), ("decode", table.decode)):
        out[name] = {"x": _whole(surface.x), "y": _whole(surface.y), **_named(surface.values)}
    if table.mixed is not None:
        names = ("chunk_tokens", "past_tokens", "decodes", "context")
        axes = dict(zip(names, map(_whole, table.mixed.axes), strict=True))
        out["mixed"] = {**axes, "ratios": table.mixed.ratios.tolist()}
    return {**out, "digest": digest(out)}


def _named(values: Floats) -> dict[str, Any]:
    joules = values[..., JOULES]
    return {
        "seconds": values[..., SECONDS].tolist(),
        "joules": None if np.isnan(joules).any() else joules.tolist(),
        "error_s": values[..., ERROR_S].tolist(),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _whole(sizes: Floats) -> list[int]:
    return [int(x) for x in sizes]


def digest(values: dict[str, Any]) -> str:
    """Return the digest of a table's JSON object without one."""
    plain = {k: v for k, v in values.items() if k != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_table(path: str | Path, table: GroupedSteps) -> None:
    """Write a table as JSON, whole or not at all."""
    write_json(path, as_json(table))


def read_table(path: str | Path, model: str | None = None) -> GroupedSteps:
    """Return the table in a file; `model` is the one that it must be of, where one is given.

    Raises `UserError` for what is no table, for one that was changed after it was written, and for one of
    another model.
    """
    where = str(path)
    table = table_of(read_json(where, "a step table's JSON", MAX_FILE_BYTES), where)
    if model is not None and table.model != model:
        raise UserError(f"{where}: a step table of {table.model!r}, not of {model!r} (right: make one of it)")
    return table


def table_of(values: Any, where: str) -> GroupedSteps:
    """Return the table of a JSON object. Raises `UserError` as `read_table` does."""
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        seen = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise UserError(f"{where}: schema is {str(seen)[:60]!r}; right: {SCHEMA!r}, a step table")
    try:
        _check_digest(values, where)
        return _TableFile.model_validate(tuples(values)).table()
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(map(_fault, own_faults(error)[:3]))) from None
    except RecursionError:
        raise UserError(f"{where}: its objects and lists are nested too deep for a step table") from None


def _check_digest(values: dict[str, Any], where: str) -> None:
    given = values.get("digest")
    if isinstance(given, str) and given != digest(values):
        raise UserError(
            f"{where}: its digest is {given[:64]!r}, its content's {digest(values)!r}: changed since it was "
            "written (right: leave the digest out of a table written by hand)"
        )


def _fault(error: Any) -> str:
    place = ".".join(map(str, error["loc"])) or "table"
    value = error["input"]
    seen = f" (seen: {str(value)[:60]!r})" if isinstance(value, int | float | str) else ""
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{seen}"
