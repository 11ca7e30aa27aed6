"""The mesh of ranks that a model is split over: named axes, and which rank stands where."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mtia_emu.errors import UserError, refuse_unknown

from ..ops.layout import Axes

AXES = {  # in the order of ranks, the slowest first; what each of them splits
    "mb": "the batch, in micro-batches that a chip runs one after another",
    "pp": "layers, in stages of a pipeline",
    "dp": "the batch",
    "ep": "stacks of experts",
    "cp": "the sequence",
    "tp": "weights and heads",
}
FLAGS = {
    "sp": "norms and residuals are split over the sequence between the products of `tp`",
    "dispatch": "the batch is split over `ep` too, and rows are sent to their experts and back",
}
TABLES = ("row", "column")  # all of them so
KINDS = ("table", "column", "row", "copied")  # how a planner may place each: whole on one rank, ...
PLAN = "plan"  # any of them
CUTS = ("weights", "time")
ONNX = "onnx"
CHUNKS = "vp"  # stages that a chip has
SAID = ("tables", "bucket", "stages", CHUNKS, "schedule", ONNX)  # what has a value of its own
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
RIGHT = (
    "tp=8,pp=2,dp=2,ep=2,cp=2,mb=4, sp, dispatch, tables=row|column|table|plan, bucket=1MiB, stages=time, "
    "vp=2, schedule=gpipe, onnx, or auto"
)
MOST = 4096  # ranks, micro-batches among them


@dataclass(frozen=True)
class Mesh:
    """How many ranks stand along each axis (`AXES`), the slowest first, and choices of how to split.

    `sequence`: between products that `tp` splits, values are split over the sequence; `tables`: embedding
    tables are split by "row" or "column" over `dp` (`tp` where there is no `dp`), or each is placed by one of
    several `KINDS` ("table+row", "plan" for any), "" where they are not split;
    `dispatch`: the batch is split over `ep` too, and rows are sent to the ranks of their experts and back;
    `bucket`: exchanges of one kind and moment go together up to so many bytes, 0 for none; `cut`: stages have
    about equal bytes of "weights", or take about equal "time"; `onnx`: values lie as the model's own
    annotations say, of the configuration of that name ("": of whichever fits), None where they do not;
    `chunks`: a chip has so many stages, every `pp`-th one; `schedule`: the order of their passes in training,
    "" where none is said.
    Raises `UserError` for sizes below 1 and for more ranks than `MOST`.
    """

    sizes: Mapping[str, int]
    sequence: bool = False
    tables: str = ""
    dispatch: bool = False
    bucket: int = 0
    cut: str = CUTS[0]
    onnx: str | None = None
    chunks: int = 1
    schedule: str = ""

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            if name not in AXES:
                raise refuse_unknown("axis", name, AXES)
            if size < 1:
                raise UserError(f"--parallel {name}={size}: an axis has 1 rank or more")
        ranks = math.prod(self.sizes.values())
        if ranks > MOST:
            raise UserError(f"--parallel: {ranks} ranks and micro-batches (right: at most {MOST})")
        full = {name: self.sizes.get(name, 1) for name in AXES}
        object.__setattr__(self, "sizes", full)
        if self.sequence and full["tp"] == 1:
            raise UserError("--parallel sp: it goes with tp, of which there is none (right: tp=2,sp)")
        if self.dispatch and full["ep"] == 1:
            raise UserError(
                "--parallel dispatch: rows go to experts over ep, there is none (right: ep=2,dispatch)"
            )
        if self.chunks < 1 or (self.chunks > 1 and full["pp"] == 1):
            raise UserError(
                f"--parallel {CHUNKS}={self.chunks}: stages of a chip in a pipeline (right: pp=2,vp=2)"
            )
        if self.schedule and full["pp"] == 1:
            raise UserError(
                f"--parallel schedule={self.schedule}: it goes with pp (right: pp=2,schedule={self.schedule})"
            )
        if self.cut != CUTS[0] and full["pp"] == 1:
            raise UserError(f"--parallel stages={self.cut}: it goes with pp (right: pp=2,stages={self.cut})")
        if self.tables and full["dp"] == full["tp"] == 1:
            raise UserError(
                f"--parallel tables={self.tables}: tables are split over dp or tp, of which there is none "
                f"(right: dp=2,tables={self.tables})"
            )

    def __str__(self) -> str:
        axes = [f"{name}={size}" for name, size in self.sizes.items() if size > 1]
        tables = [f"tables={self.tables}"] if self.tables else []
        flags = [name for name, on in (("sp", self.sequence), ("dispatch", self.dispatch)) if on]
        bucket = [f"bucket={_spelt(self.bucket)}"] if self.bucket else []
        cut = [f"stages={self.cut}"] if self.cut != CUTS[0] else []
        cut += [f"{CHUNKS}={self.chunks}"] if self.chunks > 1 else []
        cut += [f"schedule={self.schedule}"] if self.schedule else []
        onnx = [] if self.onnx is None else [f"{ONNX}={self.onnx}" if self.onnx else ONNX]
        return ",".join([*axes, *flags, *tables, *bucket, *cut, *onnx]) or "tp=1"

    @property
    def planned(self) -> tuple[str, ...]:
        """Return the kinds of which each table is placed by one, none where all are split alike."""
        if self.tables in ("", *TABLES):
            return ()
        return KINDS if self.tables == PLAN else tuple(self.tables.split("+"))

    @property
    def lookup(self) -> Axes:
        """Return the axes that tables are spread over."""
        return (self.axes("dp") or self.axes("tp")) if self.tables else ()

    @property
    def of_batch(self) -> tuple[str, ...]:
        """Return the axes that the batch is split over."""
        return ("mb", "dp", "ep") if self.dispatch else ("mb", "dp")

    @property
    def chips(self) -> int:
        """Return how many chips the mesh takes: micro-batches share them."""
        return math.prod(size for name, size in self.sizes.items() if name != "mb")

    @property
    def stages(self) -> int:
        """Return the stages of the pipeline."""
        return self.sizes["pp"] * self.chunks

    @property
    def each(self) -> int:
        """Return the chips that a stage runs on."""
        return self.chips // self.sizes["pp"]

    @property
    def batches(self) -> int:
        """Return the micro-batches that follow one another through the pipeline."""
        return self.sizes["mb"]

    @cached_property
    def factors(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Return the prime factors of each axis, the slowest first, by the axis's name: (name, size)."""
        return {name: _factors(name, size) for name, size in self.sizes.items()}

    @cached_property
    def counts(self) -> dict[str, int]:
        """Return the size of each factor but those of `pp`: the axes that layouts name."""
        return {name: size for axis in AXES if axis != "pp" for name, size in self.factors[axis]}

    def axes(self, name: str) -> Axes:
        """Return the factors of an axis by their names."""
        return tuple(factor for factor, _ in self.factors[name])

    @cached_property
    def ranks(self) -> tuple[dict[str, int], ...]:
        """Return the place of each rank of a stage along each factor; the last varies fastest."""
        names = list(self.counts)
        places = itertools.product(*(range(self.counts[name]) for name in names))
        return tuple(dict(zip(names, place, strict=True)) for place in places)

    def number(self, place: Mapping[str, int]) -> int:
        """Return the number of the rank of a stage that stands at a place."""
        number = 0
        for name, size in self.counts.items():
            number = number * size + place[name]
        return number

    def index(self, place: Mapping[str, int], axes: Sequence[str]) -> int:
        """Return a place's position along axes, the first of which is the slowest."""
        position = 0
        for name in axes:
            position = position * self.counts[name] + place[name]
        return position

    def group(self, place: Mapping[str, int], axes: Sequence[str]) -> tuple[int, ...]:
        """Return the ranks of a stage that differ from a place along axes alone, in their order there."""
        spots = itertools.product(*(range(self.counts[name]) for name in axes))
        return tuple(self.number({**place, **dict(zip(axes, spot, strict=True))}) for spot in spots)

    def chip(self, stage: int, rank: int) -> int:
        """Return the number of the chip on which a rank of a stage runs."""
        place, number = self.ranks[rank], 0
        for axis in ("dp", "ep", "cp", "tp"):
            number = number * self.sizes[axis] + self.index(place, self.axes(axis))
        return stage % self.sizes["pp"] * self.each + number


def _factors(name: str, size: int) -> tuple[tuple[str, int], ...]:
    """Return the prime factors of an axis, the largest first, each with a name of its own."""
    primes, divisor = [], 2
    while size > 1:
        while size % divisor:
            divisor += 1
        primes.append(divisor)
        size //= divisor
    ordered = sorted(primes, reverse=True)
    if len(ordered) == 1:
        return ((name, ordered[0]),)
    return tuple((f"{name}.{i}", prime) for i, prime in enumerate(ordered))


def parse_parallel(text: str) -> Mesh:
    """Return the mesh that a text names, as in "tp=8,pp=2,mb=4,sp"; raise `UserError` for what it cannot."""
    said: dict[str, str] = {}
    for part in (p.strip() for p in text.split(",")):
        name, equals, value = (x.strip() for x in part.partition("="))
        if name == "auto":
            raise UserError(
                f"--parallel {text!r}: auto stands alone, and is for `run` alone (right: {RIGHT})"
            )
        if name not in (*AXES, *FLAGS, *SAID):
            raise refuse_unknown("axis of --parallel", name, [*AXES, *FLAGS, *SAID, "auto"])
        if name in said:
            raise UserError(f"--parallel {text!r} gives {name} twice (right: once)")
        if name in FLAGS and equals:
            raise UserError(f"--parallel {part!r}: {name} has no value (right: {RIGHT})")
        for kind, values in (("tables", (*KINDS, PLAN)), ("stages", CUTS)):
            for each in value.split("+") if kind == "tables" else [value]:
                if name == kind and each not in values:
                    raise refuse_unknown(kind, each, values)
        if name == "tables" and PLAN in value and value != PLAN:
            raise UserError(f"--parallel tables={value}: {PLAN} is any kind (right: tables={PLAN})")
        if name in (*AXES, CHUNKS) and not (
            value.isascii() and value.isdigit() and 1 <= len(value) <= 6 and int(value)
        ):
            raise UserError(f"--parallel {part!r}: no size of 1 or more (right: {RIGHT})")
        if name == "schedule" and not value:
            raise UserError("--parallel schedule has no value (right: schedule=1f1b or schedule=gpipe)")
        said[name] = value
    sizes = {name: int(value) for name, value in said.items() if name in AXES}
    bucket = _bytes(said["bucket"]) if "bucket" in said else 0
    cut = said.get("stages", CUTS[0])
    flags = ("sp" in said, said.get("tables", ""), "dispatch" in said)
    chunks, schedule = int(said.get(CHUNKS, 1)), said.get("schedule", "")
    return Mesh(sizes, *flags, bucket, cut, said.get(ONNX), chunks, schedule)


def _bytes(text: str) -> int:
    """Return the bytes of a text as "25MiB"; raise `UserError` for another."""
    number, unit = text[:-3], text[-3:]
    if unit not in UNITS or not (number.isascii() and number.isdigit() and len(number) <= 6 and int(number)):
        raise UserError(f"--parallel bucket={text}: no size (right: bucket=512KiB, 25MiB or 1GiB)")
    return int(number) * UNITS[unit]


def _spelt(size: int) -> str:
    """Return bytes as they are read, in the largest unit of which they are whole."""
    unit = next((name for name, each in reversed(UNITS.items()) if size % each == 0), "KiB")
    return f"{size // UNITS[unit]}{unit}"
