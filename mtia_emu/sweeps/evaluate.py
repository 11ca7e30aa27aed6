"""One design point: a chip is made, its area and cost reckoned, every model compiled, timed and priced."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.lower.fixed import fixed_mappings
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.pass_text import files_of

from ..engine.cost import BlockCost
from ..engine.lookups import Lookups, from_inputs
from ..engine.memoised import memoised_costs
from ..errors import UserError
from ..fleet.load import load_scenario
from ..fleet.scenario import Scenario
from ..gpu import load_gpu
from ..machine.base import chip_values
from ..machine.chip import SYSTEM_TABLES, Chip, put, put_all, validate
from ..machine.memory_choice import filled
from ..options import CHIP
from ..program.census import looks_up
from ..program.inputs import typed_inputs
from ..program.isa import Program
from ..results.machine import Machine
from ..reuse.code import code_digest
from ..reuse.memo import Memo, Memoise
from ..silicon import Area, Cost, Silicon, area, cost, load_silicon
from ..sources import ZOO, open_model
from ..study.accelerator import Accelerator, GraphModel
from ..study.system_machine import SystemMachine
from ..system.load import changed_system
from ..types import dtype
from .expression import evaluate
from .fleets import check_fleet, fleet_columns, silicon_numbers
from .row import EXCLUDED, FAILED, OK, Row, layer_groups, model_metrics, overall
from .space import Point
from .spec import NO_SYSTEM, ONE_RANK, OVER, PARALLEL, SYSTEM, Spec, Workload, beside


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know: the spec, the base chip's values, which code and files it is for.

    `models` are digests of the models' files, and of those that hold passes or mappings of the user's.
    """

    spec: Spec
    chip: dict[str, Any]
    code: str
    models: tuple[str, ...]
    scenario: Scenario | None = None

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides the rows."""
        fleet = self.scenario.model_dump_json() if self.scenario else ""
        text = repr((self.spec.digest, self.chip, self.code, self.models, *([fleet] if fleet else [])))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_job(spec: Spec) -> Job:
    """Return the job of a spec, with the base chip read and the models' files hashed.

    Raises `UserError` for a chip, systems, meshes or files that no point could be made of.
    """
    values, where = chip_values(spec.chip)
    validate(values, where)
    _check_systems(spec)
    passes = spec.options(spec.model[0]).passes
    mappings = [fixed_mappings(spec.options(model).mapping).files for model in spec.model]
    read = (*files_of(passes), *(file for files in mappings for file in files))
    files = (*map(_model_digest, spec.model), *map(_file_digest, read))
    return Job(spec, values, code_digest(), files, _scenario(spec))


def _check_systems(spec: Spec) -> None:
    """Raise `UserError` for a system or mesh that there is not, and a key that no system named has."""
    axes = {one.key: one for one in spec.axes}
    systems = map(str, axes[SYSTEM].values if SYSTEM in axes else ())
    named = [name for name in systems if name != NO_SYSTEM]
    for name in named:
        changed_system(name, {})
    for text in axes[PARALLEL].values if PARALLEL in axes else ():
        parse_parallel(str(text))
    for key in (key for key in axes if key.startswith(SYSTEM_TABLES)):
        faults = [fault for name in named if (fault := _refusal(name, {key: axes[key].at(0.0)}))]
        if faults and len(faults) == len(named):
            raise faults[0]


def _refusal(system: str, settings: Mapping[str, Any]) -> UserError | None:
    """Return why a system cannot be had with settings; None where it can."""
    try:
        changed_system(system, settings)
    except UserError as error:
        return error
    return None


def _scenario(spec: Spec) -> Scenario | None:
    """Return the scenario that points are priced in, held to the models."""
    if spec.fleet is None:
        return None
    scenario = load_scenario(spec.fleet.scenario)
    check_fleet(spec.fleet, scenario, [model.name for model in spec.model], "sweep")
    if "npv_usd" in spec.objectives and scenario.programme is None:
        raise UserError(
            f"sweep: objective 'npv_usd' is of a programme (right: [programme] in {spec.fleet.scenario})"
        )
    return scenario


def _model_digest(model: Workload) -> str:
    """Return a digest of a model's file; a built-in model is its name."""
    if model.model.startswith(ZOO):
        return model.model
    with open_model(model.model, model.dims) as source:
        return _file_digest(source.path)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass
class Evaluator:
    """Evaluates the points of one job; what points have in common is done once."""

    job: Job
    memoise: Memoise = field(default_factory=Memo)
    graphs: dict[str, Graph] = field(default_factory=dict)
    examples: dict[str, tuple[dict[str, Any], Any]] = field(default_factory=dict)

    @cached_property
    def _facts(self) -> Silicon:
        return load_silicon(self.job.spec.silicon)

    def row(self, point: Point) -> Row:
        """Return the row of a point: "failed" where the chip or its programs are impossible, saying why."""
        params: dict[str, Any] = dict(point.params)
        try:
            params, chip = self._chip(params)
            metrics, broken = self._silicon(chip)
            if broken:
                return Row(point.index, params, EXCLUDED, broken)
            return self.timed(point.index, params, chip, metrics)
        except UserError as error:
            return Row(point.index, params, FAILED, str(error))

    def excluded(self, point: Point) -> str:
        """Return the constraint that a point breaks, empty where it breaks none or its chip cannot be."""
        try:
            return self._silicon(self._chip(dict(point.params))[1])[1]
        except UserError:
            return ""

    def machine(self, chip: Chip) -> Accelerator:
        """Return a chip as a machine whose work is memoised with that of those before it."""
        return Accelerator(chip, self._costs, self.memoise)

    def over(self, chip: Chip, params: Mapping[str, Any]) -> tuple[Machine, int]:
        """Return the machine of a point, and how many chips it is: many where the point names a system."""
        name = str(params.get(SYSTEM, NO_SYSTEM))
        if name == NO_SYSTEM:
            return self.machine(chip), 1
        mesh = parse_parallel(str(params.get(PARALLEL, ONE_RANK)))
        system = changed_system(name, params, chip)
        return SystemMachine(system, mesh, memoise=self.memoise, changed=chip), mesh.chips

    def _costs(self, program: Program, chip: Chip, lookups: Mapping[int, Lookups]) -> list[BlockCost]:
        return memoised_costs(program, chip, self.memoise, lookups)

    def model(self, model: Workload) -> GraphModel:
        """Return a model of the spec, for any machine."""
        graph, dims = self._graph(model)
        about = About(model.name, dims=dims)
        return GraphModel(graph, self.job.spec.options(model), about, lookups=partial(self._lookups, model))

    def timed(self, index: int, params: Mapping[str, Any], chip: Chip, metrics: dict[str, Any]) -> Row:
        """Return the row of a chip whose columns of area and cost are known."""
        spec, each, layers = self.job.spec, {}, {}
        machine, chips = self.over(chip, params)
        for model in spec.model:
            try:
                report = machine.report(self.model(model))
            except UserError as error:
                raise UserError(f"{model.name}: {error}") from None
            peak = chips * chip.peak_macs_per_cycle(dtype(report.dtype)) * chip.clock_hz
            each[model.name], layers[model.name] = model_metrics(report, peak), layer_groups(report)
        dollars = metrics["dollars"]
        metrics |= overall(
            each, spec, chips * metrics["area_mm2"], None if dollars is None else chips * dollars
        )
        metrics |= {f"{name}.{key}": value for name, one in each.items() for key, value in one.items()}
        if spec.fleet is not None and self.job.scenario is not None:
            price = cost(chip, self._facts)
            point = silicon_numbers(chip, metrics["area_mm2"], price, self._facts)
            metrics |= fleet_columns(spec.fleet, self.job.scenario, point, each)
        return Row(index, params, OK, "", metrics, layers)

    def _chip(self, params: dict[str, Any]) -> tuple[dict[str, Any], Chip]:
        values = copy.deepcopy(self.job.chip)
        put_all(values, {key: x for key, x in params.items() if not beside(key)})
        for key, text in self.job.spec.link.items():
            params[key] = _whole(evaluate(text, flat(filled(values))))
            put(values, key, params[key])
        return params, validate(values, self.job.spec.chip)

    def _silicon(self, chip: Chip) -> tuple[dict[str, Any], str]:
        """Return the columns of area and cost, and the constraint that they or the parameters break."""
        parts, price = area(chip, self._facts), cost(chip, self._facts)
        values = flat(chip.model_dump()) | {"area_mm2": parts.total_mm2, "dollars": price.total_usd}
        for text in self.job.spec.constraints:
            if not evaluate(text, values):
                return {}, f"not {text}"
        return silicon_columns(chip, parts, price), ""

    def _lookups(self, model: Workload, program: Program) -> dict[int, Lookups]:
        """Return which rows of its tables a built-in model looks up, as `api.run` has it."""
        if not any(map(looks_up, program.blocks)):
            return {}
        if model.name not in self.examples:
            with open_model(model.model, model.dims) as source:
                given = source.examples(self.job.spec.seed) if source.examples else {}
                known = typed_inputs(given, program.inputs) if given else {}
                self.examples[model.name] = known, source.popularity
        return from_inputs(program, *self.examples[model.name])

    def _graph(self, model: Workload) -> tuple[Graph, dict[str, int]]:
        if model.name not in self.graphs:
            with open_model(model.model, model.dims) as source:
                self.graphs[model.name] = source.graph()
        return self.graphs[model.name], model.dims


def silicon_columns(chip: Chip, parts: Area, price: Cost) -> dict[str, Any]:
    """Return the columns of a row that need no model."""
    return {
        "area_mm2": parts.total_mm2,
        "die_mm2": chip.die_mm2,
        "dollars": price.total_usd if math.isfinite(price.total_usd) else None,
        "yield_share": price.yield_share,
        "dram_bytes_per_s": float(chip.dram.bytes_per_s),
        "sram_bytes_per_s": float(chip.sram_bytes_per_s),
        **{f"area.{name}": value for name, value in asdict(parts).items()},
    }


def _whole(value: Any) -> Any:
    """Return a float without a fraction as an integer, which is what most parameters are."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, by dotted key."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def reference(evaluator: Evaluator) -> tuple[Row, dict[str, Any]]:
    """Return the base chip's row (index -1) and the GPU's metrics: what points are compared with.

    A model that cannot be compiled for the base chip raises `UserError` here, before workers start.
    """
    spec, job = evaluator.job.spec, evaluator.job
    chip = validate(copy.deepcopy(job.chip), spec.chip)
    facts, values = load_silicon(spec.silicon), flat(chip.model_dump())
    params = {key: values.get(key, OVER.get(key)) for key in (*spec.set, *spec.link)}
    columns = silicon_columns(chip, area(chip, facts), cost(chip, facts))
    base = evaluator.timed(-1, params, chip, columns)
    if spec.gpu == "none":
        return base, {}
    gpu, device = load_gpu(spec.gpu), facts.device.get(spec.gpu)
    each, share = {}, 0.0
    for model in spec.model:
        report = gpu.report(evaluator.machine(chip).run(evaluator.model(model)))
        moved = report.traffic.dram_read_bytes + report.traffic.dram_write_bytes
        if report.seconds_band is not None:
            share = max(share, 1 - report.seconds_band.low, report.seconds_band.high - 1)
        each[model.name] = {
            "seconds": report.seconds,
            "joules": gpu.around.joules(report.joules, report.seconds, CHIP),  # as those of points
            "joules_of": CHIP,
            "macs": report.macs,
            "dram_bytes": moved,
        }
    size, usd = (device.die_mm2, device.make_usd) if device else (None, None)
    out = {"name": spec.gpu, "seconds_error_share": share} | overall(each, spec, size, usd)
    return base, out | {f"{name}.{key}": v for name, one in each.items() for key, v in one.items()}
