"""What a sweep is asked to do: a checked, frozen value read from TOML or made of flags."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from ..errors import UserError, nearest
from ..files import toml
from ..files.toml import own_faults
from ..files.writing import valid
from ..machine.chip import SYSTEM_TABLES, known_keys, load_chip
from ..options import Machines, Options, declared
from ..silicon import load_silicon
from .axis import Axis, axis
from .expression import evaluate, names

MAX_FILE_BYTES = 1 << 18
MOST_VALUES = 1 << 18  # of all parameters together
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
METHODS = ("grid", "random", "latin", "tpe", "nsga2")
GUIDED = ("tpe", "nsga2")
# What a design point is judged by, and whether more is better. Over several models: weighted geometric means.
OBJECTIVES: dict[str, bool] = {
    "seconds": False,
    "joules": False,
    "area_mm2": False,
    "dollars": False,
    "perf_per_watt": True,
    "perf_per_mm2": True,
    "perf_per_dollar": True,
}
FLEET_OBJECTIVES: dict[str, bool] = {  # of a sweep with a fleet
    "dollars_per_million_tokens": False,
    "tco_per_year": False,
    "mw": False,
    "tco2e": False,
    "npv_usd": True,
}
ALL_OBJECTIVES = OBJECTIVES | FLEET_OBJECTIVES
DERIVED = ("area_mm2", "dollars")  # what constraints may name besides the chip's parameters
TABLES = ("pe.matrix.rates.", "energy.mac_pj.")
SYSTEM, PARALLEL, NO_SYSTEM, ONE_RANK = "system", "parallel", "none", "tp=1"
OVER = {SYSTEM: NO_SYSTEM, PARALLEL: ONE_RANK}  # axes that are no parameters of a chip, at the base chip


def beside(key: str) -> bool:
    """Return whether a parameter is no chip's, but of the system that it stands in."""
    return key in OVER or key.startswith(SYSTEM_TABLES)


BELOW = {"seed": 1 << 32}  # what whole numbers must be below: the samplers take no larger seed


def _fields(use: str, *kinds: type) -> Any:
    """Return a base whose fields are the options of classes that a use has, as in `options`."""
    parts: dict[str, Any] = {}
    for f, flag in (pair for holder in kinds for pair in declared(holder, use)):
        plain: Any = str | None if f.default is None else type(f.default)
        kind: Any = Literal[flag.choices] if flag.choices else plain
        kind = kind | None if flag.choices and f.default is None else kind
        default, text = flag.variant(use, f.default)
        bounds: Any = {"ge": 0, "lt": BELOW.get(f.name)} if plain is int else {}
        parts[f.name] = (kind, Field(default=default, description=text, **bounds))
    return create_model("Fields", __config__=STRICT, **parts)


if TYPE_CHECKING:
    from pydantic import BaseModel as Loaded

    class Swept(Loaded):
        """What code of sweeps reads of the options that a spec has."""

        chip: str
        gpu: str
        seed: int
else:
    Swept, Loaded = _fields("sweep", Machines, Options), _fields("workload", Options)


class Workload(Loaded):
    """One workload: a model with its dimensions, and how much it counts."""

    model_config = STRICT

    model: str = Field(max_length=4096, description="an ONNX file or zoo:NAME")
    name: str = Field(default="", max_length=64, description="what columns and pictures call it")
    dims: dict[str, int] = Field(default_factory=dict, description="symbolic dimensions")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="importance in the weighted geometric mean")


class FleetWorkload(BaseModel):
    """Which work of a scenario a model does, and how many units of it a run is."""

    model_config = STRICT

    work: str = Field(max_length=64, description="a kind of work of the scenario")
    units: float = Field(gt=0, le=1e15, description="units of work that a run of the model does")


class FleetSpec(BaseModel):
    """A fleet that each point is priced in: the scenario, the option that it serves, and its models' work."""

    model_config = STRICT

    scenario: str = Field(max_length=4096, description="a scenario's TOML file")
    option: str = Field(max_length=64, description="the option whose own device a point takes the place of")
    work: dict[str, FleetWorkload] = Field(min_length=1, max_length=64, description="by a model's name")


class Spec(Swept):
    """A sweep: models, a base chip, the parameters that vary, and how points are chosen."""

    model_config = STRICT

    model: tuple[Workload, ...] = Field(min_length=1, max_length=64, description="workloads")
    set: dict[str, Any] = Field(
        default_factory=dict, max_length=64, description="parameter to values: a list or a range"
    )
    link: dict[str, str] = Field(default_factory=dict, description="parameter to an expression of others")
    constraints: tuple[str, ...] = Field(default=(), max_length=64, description="expressions that must hold")
    method: Literal["grid", "random", "latin", "tpe", "nsga2"] = "grid"
    points: int = Field(default=0, ge=0, le=10_000_000, description="points to choose (not for a grid)")
    batch: int = Field(
        default=32, ge=1, le=10_000, description="points that a guided search asks for at a time"
    )
    objectives: tuple[str, ...] = Field(
        default=("seconds", "joules", "area_mm2"), min_length=1, max_length=len(ALL_OBJECTIVES)
    )
    fleet: FleetSpec | None = Field(default=None, description="a fleet that points are priced in")
    silicon: dict[str, float] = Field(default_factory=dict, description="numbers of area and cost, changed")

    @field_validator("model", "constraints", "objectives", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Return the parameters that vary, in the order given."""
        return tuple(axis(key, value) for key, value in self.set.items())

    def options(self, model: Workload) -> Options:
        """Return the options that a model of the sweep is compiled and run with."""
        parts = (self, "sweep"), (model, "workload")
        given = {f.name: getattr(part, f.name) for part, use in parts for f, _ in declared(use=use)}
        return Options(**given)

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides the rows."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_spec(path: str | Path) -> dict[str, Any]:
    """Return the values in a spec file, unchecked; raise `UserError` for what is not TOML."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"spec {str(path)!r} is not a file (right: a .toml file; see examples/sweep.toml)")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"spec {path} has {file.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        return toml.parse(file.read_text(encoding="utf-8-sig"), f"spec {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"spec {path} cannot be read as text: {error}") from None


def make_spec(values: Mapping[str, Any], where: str = "spec") -> Spec:
    """Return the spec that values describe; raise `UserError` naming every fault."""
    try:
        spec = Spec.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(map(_fault, own_faults(error)))) from None
    spec = spec.model_copy(update={"model": _named(spec.model, where)})
    _check_keys(spec, where)
    _check_method(spec, where)
    load_silicon(spec.silicon)
    load_chip(spec.chip)
    return spec


def _fault(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "string_unicode":
        shown = valid(str(error["input"]))[:80]
        return f"'{key}' is '{shown}', which is not UTF-8, as a store's texts are (right: a link to it)"
    if error["type"] == "extra_forbidden":
        known = [*Workload.model_fields] if len(error["loc"]) > 1 else [*Spec.model_fields]
        return f"unknown key '{key}'{nearest(str(error['loc'][-1]), known)} (known: {', '.join(known)})"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    return f"'{key}' is {str(error['input'])[:80]!r}: {error['msg'].lower()}"


def _named(models: tuple[Workload, ...], where: str) -> tuple[Workload, ...]:
    """Return the models, each with a name of its own."""
    out: list[Workload] = []
    for model in models:
        name = model.name or re.sub(r"^zoo:|\.onnx$", "", model.model.rsplit("/", 1)[-1])
        used = [m.name for m in out]
        if name in used and model.name:
            raise UserError(f"{where}: two models are called '{name}' (right: a name each)")
        number = next(n for n in range(1, 99) if (n == 1 and name not in used) or f"{name}-{n}" not in used)
        out.append(
            model.model_copy(update={"name": name if name not in used else f"{name}-{max(number, 2)}"})
        )
    return tuple(out)


def _check_keys(spec: Spec, where: str) -> None:
    known = known_keys()
    lost = [key for key in spec.set if beside(key) and SYSTEM not in spec.set]
    if lost:
        raise UserError(f"{where}: '{lost[0]}' is of a system (right: 'system' too)")
    for key in (*spec.set, *spec.link):
        if key not in known and not (beside(key) and key in spec.set) and not key.startswith(TABLES):
            raise UserError(f"{where}: unknown parameter '{key}'{nearest(key, [*known, *OVER])}")
    count = sum(len(one.values) for one in spec.axes)
    if count > MOST_VALUES:
        raise UserError(
            f"{where}: its parameters have {count} values together, at most {MOST_VALUES} are taken"
        )
    both = set(spec.set) & set(spec.link)
    if both:
        raise UserError(f"{where}: '{min(both)}' is both set and linked (right: one of the two)")
    for key, text in spec.link.items():
        _check_names(f"{where}: link '{key}'", text, known)
    for text in spec.constraints:
        _check_names(f"{where}: constraint", text, [*known, *DERIVED])
    known_ones = ALL_OBJECTIVES if spec.fleet else OBJECTIVES
    for name in spec.objectives:
        if name in FLEET_OBJECTIVES and spec.fleet is None:
            raise UserError(f"{where}: objective '{name}' is of a fleet (right: with a table [fleet])")
        if name not in known_ones:
            near = nearest(name, known_ones)
            raise UserError(f"{where}: unknown objective '{name}'{near} (known: {', '.join(known_ones)})")
    if len(set(spec.objectives)) < len(spec.objectives):
        raise UserError(f"{where}: an objective is given twice: {', '.join(spec.objectives)}")


def _check_names(what: str, text: str, known: list[str]) -> None:
    if not names(text):
        evaluate(text, {})  # the same at every point: what cannot be said there is said now
    for name in sorted(names(text)):
        if name not in known and not name.startswith(TABLES):
            raise UserError(f"{what}: unknown name '{name}' in {text!r}{nearest(name, known)}")


def _check_method(spec: Spec, where: str) -> None:
    free = [a.key for a in spec.axes if not a.values]
    if spec.method == "grid" and free:
        raise UserError(
            f"{where}: a grid needs values of '{free[0]}' ({spec.set[free[0]]!r} has no step); "
            'right: "16..128 step 16", or another method'
        )
    if spec.method == "grid" and spec.points:
        raise UserError(f"{where}: a grid takes every point: leave 'points' out, or choose another method")
    if spec.method != "grid" and not spec.points:
        raise UserError(f"{where}: method '{spec.method}' needs the number of 'points'")
    if spec.method != "grid" and not spec.set:
        raise UserError(f"{where}: nothing varies: method '{spec.method}' needs parameters in [set]")


def parse_set(text: str) -> tuple[str, Any]:
    """Return (key, values) of `KEY=V1,V2,...`, `KEY=LOW..HIGH step S` or `KEY=VALUE`."""
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not key or not raw:
        raise UserError(f"--set {text!r}: not KEY=VALUES (right: --set pe.matrix.rows=16,32,64)")
    if ".." in raw:
        return key, raw
    return key, [_scalar(word.strip()) for word in raw.split(",")]


def _scalar(word: str) -> Any:
    try:
        return tomllib.loads(f"x = {word}")["x"]
    except (ValueError, RecursionError):
        return word


def parse_model(text: str) -> dict[str, Any]:
    """Return the model that `MODEL[,dim=INT...][,weight=W][,name=NAME][,option=VALUE...]` describes."""
    model, *parts = text.split(",")
    plain = {f.name: f.default for f, _ in declared(use="workload")}
    out: dict[str, Any] = {"model": model, "dims": {}}
    for part in parts:
        key, equals, value = (x.strip() for x in part.partition("="))
        if not (equals and key and value):
            raise UserError(
                f"--model {text!r}: {part!r} is not NAME=VALUE (right: zoo:llama-3-8b,seq=1,past=2048)"
            )
        if key == "name" or key in plain:
            out[key] = _scalar(value) if isinstance(plain.get(key), int) else value
        elif key == "weight":
            out[key] = _float(text, value)
        elif value.isascii() and value.isdigit() and len(value) <= 18:
            out["dims"][key] = int(value)
        else:
            raise UserError(f"--model {text!r}: dimension {part!r} is not an integer of at least 0")
    return out


def _float(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--model {text!r}: weight {value!r} is not a number") from None
