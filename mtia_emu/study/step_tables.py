"""Step tables of a decoder on a machine: anchors are compiled, refined where they leave too much open.

Two grids are compiled: decodes of n sequences and chunks of one prompt, each after all its pasts at once. An
anchor's error is what interpolating between its neighbours would be wrong by. Where that is more than
`ERROR_SHARE` of a step, the middles beside it are compiled too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from mtia_emu.compiler.pipeline import DEFAULTS

from ..errors import UserError
from ..options import Options
from ..results.machine import Machine
from ..serving.step_table import GroupedSteps, TableFacts
from ..serving.surfaces import Curve, Floats, Surface
from ..sources import HF, ZOO
from ..zoo.llama_parts import StepPart
from .step_anchors import ServedModel, StepAnchor, memory_bytes

ERROR_SHARE = 0.01
MOST_REFINED = 8  # anchors more than the grid's own; one that serves two curves counts twice
BEYOND = (272,)  # tokens: kernels take rows in tiles of up to 256, and a step of time follows each
NEAREST = 1.25  # ratio of sizes that are not parted further

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Hull:
    """What a table is to know: the most tokens of a step, sequences that decode, and keys of a context."""

    tokens: int = 2048
    decodes: int = 256
    context: int = 8192

    def __post_init__(self) -> None:
        """Refuse a hull in which no step fits."""
        for name, least in (("tokens", 16), ("decodes", 1), ("context", 16)):
            value = getattr(self, name)
            if not least <= value <= 1 << 20:
                raise UserError(f"{name} of a step table are {value} (right: from {least} to {1 << 20})")

    @property
    def chunks(self) -> list[int]:
        """Return the chunks to begin with: one is just beyond a full tile of every machine here."""
        return sorted({*_fourfold(16, self.tokens), *(x for x in BEYOND if x < self.tokens)})

    @property
    def sequences(self) -> list[int]:
        """Return the numbers of decoding sequences to begin with."""
        return _fourfold(1, self.decodes)

    @property
    def keys(self) -> list[int]:
        """Return the contexts of decodes."""
        return _fourfold(16, self.context)

    @property
    def pasts(self) -> list[int]:
        """Return the tokens before a chunk."""
        return [0, *_fourfold(512, self.context)]


def _fourfold(first: int, last: int) -> list[int]:
    return sorted({*(first << (2 * i) for i in range(20) if 2 * (first << (2 * i)) <= last), last})


@dataclass
class _Building:
    """The anchors of a table in the making: those of decodes by sequences, of prompts by tokens."""

    served: ServedModel
    hull: Hull
    progress: Progress
    decodes: dict[int, StepAnchor] = field(default_factory=dict)
    prompts: dict[int, StepAnchor] = field(default_factory=dict)
    plain: dict[int, StepAnchor] = field(default_factory=dict)  # prompts with nothing before them

    def compile(self, kind: dict[int, StepAnchor], sizes: Sequence[int]) -> None:
        """Compile anchors of a kind, one of the three."""
        for size in sizes:
            done = len(self.decodes) + len(self.prompts) + len(self.plain)
            self.progress("steps", done, max(done + 1, len(self.hull.sequences) + len(self.hull.chunks)))
            if kind is self.decodes:
                kind[size] = self._anchor(StepPart(size, 1, 0), self._decode_pasts(size))
            else:
                kind[size] = self._anchor(
                    StepPart(1, size, 0), [0] if kind is self.plain else self.hull.pasts
                )

    def _decode_pasts(self, sequences: int) -> list[int]:
        """Return the pasts of sequences whose keys and values fit the machine; the two least in any case."""
        room = memory_bytes(self.served.machine) // (self.served.kv_bytes_per_token * sequences)
        return [keys - 1 for i, keys in enumerate(self.hull.keys) if i < 2 or keys <= room]

    def _anchor(self, part: StepPart, pasts: Sequence[int]) -> StepAnchor:
        """Return an anchor; of more pasts than the model has layers by several compilations."""
        most = self.served.model.layers
        found = [self.served.anchor(part, pasts[i : i + most]) for i in range(0, len(pasts), most)]
        attention = {past: cost for one in found for past, cost in one.attention.items()}
        return StepAnchor(
            part, np.mean([a.linear for a in found], axis=0), np.mean([a.head for a in found], axis=0),
            attention, max(a.activation_bytes for a in found), found[0].weight_bytes, found[0].idle_w,
            *_widest(found),
        )  # fmt: skip

    @property
    def all(self) -> list[StepAnchor]:
        """Return all anchors."""
        return [*self.decodes.values(), *self.prompts.values(), *self.plain.values()]

    def linear(self) -> Curve:
        """Return the curve of linear work through all anchors."""
        return _curve([(a.part.tokens, a.linear) for a in self.all])

    def prefill(self) -> Surface:
        """Return the surface of prompts' attention."""
        return _surface({n: a.attention for n, a in self.prompts.items()})

    def decode(self) -> Surface:
        """Return the surface of decodes' attention; beyond what fits it grows as between the last two."""
        keys = self.hull.keys
        rows = {}
        for n, anchor in self.decodes.items():
            rows[n] = {past + 1: cost for past, cost in anchor.attention.items()}
            for far in keys[len(rows[n]) :]:
                (a, low), (b, high) = list(rows[n].items())[-2:]
                rows[n][far] = high + (high - low) * ((far - b) / (b - a))
        return _surface(rows)


HULL = Hull()


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing of progress."""


def step_table(
    name: str,
    machine: Machine,
    hull: Hull = HULL,
    *,
    options: Options = DEFAULTS,
    progress: Progress = silent,
) -> GroupedSteps:
    """Return the step table of a decoder on a machine; `name` is one of the zoo, or `hf:FOLDER`.

    Raises `UserError` for a model that is no decoder, and for what does not compile.
    """
    build = _Building(ServedModel(name, machine, options), hull, progress)
    build.compile(build.decodes, hull.sequences)
    build.compile(build.prompts, hull.chunks)
    refined = 0
    while refined < MOST_REFINED:
        kind, sizes, curves = _open(build)
        if not sizes:
            break
        build.compile(kind, sizes)
        refined += curves * len(sizes)
    return _table(build)


def _open(build: _Building) -> tuple[dict[int, StepAnchor], list[int], int]:
    """Return which anchors to compile next: the middles beside the one that leaves most of a step open.

    And how many curves they serve: where linear work is open most, and prompts are open at the same sizes,
    steps with all pasts close both.
    """
    linear, head = build.linear(), _head(build)
    plain = linear.values[:, 0] + head.at(1)[0]
    tried = [(build.plain, linear.sizes, linear.values[:, 2] / plain)]
    for kind, surface in ((build.prompts, build.prefill()), (build.decodes, build.decode())):
        fixed = [linear.at(n)[0] + head.at(n if kind is build.decodes else 1)[0] for n in surface.x]
        costs = surface.values[..., 0]
        shares = left_out(surface.x, costs) / (costs + np.array(fixed)[:, None])
        tried.append((kind, surface.x, shares.max(1)))
    open_ones = [
        (shares[i], kind, new)
        for kind, sizes, shares in tried
        for i in range(1, len(sizes) - 1)
        if shares[i] > ERROR_SHARE and (new := _beside(sizes, i))
    ]
    if not open_ones:
        return build.plain, [], 1
    _, kind, new = max(open_ones, key=lambda one: one[0])
    if kind is build.plain and any(k is build.prompts and n == new for _, k, n in open_ones):
        return build.prompts, new, 2
    return kind, new, 1


def _beside(sizes: Floats, i: int) -> list[int]:
    """Return the middles beside the i-th of some sizes."""
    around = [int(sizes[j]) for j in (i - 1, i, i + 1)]
    return [m for low, high in pairwise(around) if (m := _middle(low, high))]


def _middle(low: int, high: int) -> int:
    """Return a size between two, a multiple of 16 where there is one; 0 for near ones."""
    if high <= NEAREST * low or high - low < 2:
        return 0
    middle = (low + high) // 2
    rounded = middle - middle % 16
    return rounded if rounded > low else middle


def left_out(sizes: Floats, values: Floats) -> Floats:
    """Return by how much each of `values` [n, ...] differs from what its neighbours' line says of it.

    Those at the ends have no line: they get what their neighbours have.
    """
    out = np.zeros_like(values)
    if len(sizes) < 3:
        return out
    share = (sizes[1:-1] - sizes[:-2]) / (sizes[2:] - sizes[:-2])
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    out[1:-1] = np.abs(values[:-2] * (1 - share) + values[2:] * share - values[1:-1])
    out[0], out[-1] = out[1], out[-2]
    return out


def _table(build: _Building) -> GroupedSteps:
    served, each = build.served, build.all
    facts = TableFacts(
        *(served.machine.name, served.name, served.options.dtype or "fp16"),
        f"{len(each)} compiled steps of {_spelt(served)}",
        *(memory_bytes(served.machine), each[0].weight_bytes, served.kv_bytes_per_token),
        max(a.activation_bytes for a in each),
        each[0].idle_w,
        *_widest(each),
    )
    return GroupedSteps(facts, build.linear(), _head(build), build.prefill(), build.decode())


def _spelt(served: ServedModel) -> str:
    """Return what a decoder is called in a command, without the folder that it lies in."""
    return f"{HF if served.asked.startswith(HF) else ZOO}{served.name}"


def _widest(anchors: Sequence[StepAnchor]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return bands of seconds and joules that hold those of all anchors."""
    return _around([a.seconds_band for a in anchors]), _around([a.joules_band for a in anchors])


def _around(bands: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in bands), max(high for _, high in bands)


def _head(build: _Building) -> Curve:
    return _curve([(a.part.batch, a.head) for a in build.all])


def _curve(points: Sequence[tuple[int, Floats]]) -> Curve:
    """Return the curve through points; where one size has several, through their mean."""
    by_size: dict[int, list[Floats]] = {}
    for size, cost in points:
        by_size.setdefault(size, []).append(cost)
    sizes = np.array(sorted(by_size), float)
    costs = np.array([np.mean(by_size[int(n)], axis=0) for n in sizes])
    return Curve(sizes, np.column_stack([costs, left_out(sizes, costs[:, 0])]))


def _surface(points: Mapping[int, Mapping[int, Floats]]) -> Surface:
    """Return the surface through points on a grid; its error is the larger of those along x and along y."""
    x, y = sorted(points), sorted(next(iter(points.values())))
    costs = np.array([[points[a][b] for b in y] for a in x])
    at_x, at_y = np.array(x, float), np.array(y, float)
    error = np.maximum(left_out(at_x, costs[..., 0]), left_out(at_y, costs[..., 0].T).T)
    return Surface(at_x, at_y, np.concatenate([costs, error[..., None]], axis=-1))
