"""A training step as one graph: forward, loss, backward and optimiser, with weights and state in place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, UINT32, TensorType, dtype

from ..build import NodeBuilder
from ..check import check
from ..graph import Const, Graph, Node
from ..ops.draws import drawn, rows_drawn
from ..ops.fused_attention import with_totals
from ..passes import (
    Fold,
    FuseAttention,
    FuseBags,
    FuseNorms,
    FuseRotary,
    GroupHeads,
    KeepRounding,
    Legalise,
    Pass,
    SetPrecision,
)
from ..passes.set_precision import own_dtype
from .arithmetic import Arithmetic
from .differentiate import gradients_of, joined, named
from .eight_bits import in_eight_bits
from .forms import only_read, redrawn, unrounded
from .losses import first_float, with_loss
from .marks import OPTIMISER
from .optimisers import Moment, Optimiser, Sgd
from .parameters import as_constants, chosen, frozen_note, looked_up_of
from .recompute import BALANCE, Throughput, recompute
from .touched import Gradient, Touched, by_rows, rows_note

RATE, STEP, SCALE, DRAW, LOSS, TARGET, NORM, SUM = (
    "learning_rate",
    "step",
    "loss_scale",
    "draw",
    "loss",
    "target",
    "gradient_norm",
    ".sum_of_gradients",  # ends the name of what micro-batches have summed so far
)
PRECISIONS = ("fp32", "bf16", "fp16", "fp8")
NEAREST, STOCHASTIC = ("nearest", "stochastic")  # how weights in narrow floats are rounded
ROWS, TABLES = ("rows", "tables")  # what an embedding's gradient may be
FP32_REST = 8  # of 32 random bits, those that fp32 does not hold
CLIP_EPSILON = 1e-6  # beside the norm, as torch.nn.utils.clip_grad_norm_ has it
FORWARD: tuple[Pass, ...] = (
    KeepRounding(),
    Legalise(),
    Fold(),
    FuseNorms(),
    FuseRotary(),
    FuseBags(),
    GroupHeads(),
)  # ops whose gradients are made of their operands keep less for the way back


@dataclass(frozen=True)
class Recipe:
    """What a training step is made of; `train` and `freeze` are patterns of names of weights.

    `precision` is of forward and backward. Below fp32 weights are kept in fp32 beside it (masters), which the
    optimiser changes; in fp16 the loss is scaled, and a step whose gradients are not finite changes nothing.
    In fp8 the products of layers are (`eight_bits`), and all else is in bf16.
    With `rounding` "stochastic" there are no masters: weights in bf16 are changed themselves, and rounded up
    or down at random, right in the mean.
    `clip` is the most that the norm of all gradients may be, 0 for any. The gradients of `accumulate`
    micro-batches are averaged. At most `keep` bytes of the forward pass are kept for the way back, where that
    can be; what is more is computed again. `embeddings` says what the gradient of a table is of which rows
    are only looked up: those "rows", which alone are changed, or the whole of "tables".
    """

    loss: str
    optimiser: Optimiser = field(default_factory=Sgd)
    output: str = ""
    precision: str = "fp32"
    clip: float = 0.0
    accumulate: int = 1
    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    keep: float = math.inf
    embeddings: str = ROWS
    rounding: str = NEAREST

    def __post_init__(self) -> None:
        if self.rounding not in (NEAREST, STOCHASTIC):
            raise UserError(f"--rounding {self.rounding!r} (right: {NEAREST} or {STOCHASTIC})")
        if self.embeddings not in (ROWS, TABLES):
            raise UserError(f"--embeddings {self.embeddings!r} (right: {ROWS} or {TABLES})")
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision {self.precision!r} (right: {', '.join(PRECISIONS)})")
        if self.rounding == STOCHASTIC and self.stored != "bf16":
            raise UserError(
                f"--rounding {STOCHASTIC} is of weights in bf16, precision is {self.precision} (right: bf16)"
            )
        for flag, value, least in (
            ("accumulate", self.accumulate, 1),
            ("clip", self.clip, 0),
            ("keep", self.keep, 0),
        ):
            if not value >= least:
                raise UserError(f"--{flag} {value} (right: {least} or more)")

    @property
    def stored(self) -> str:
        """Return the floats of weights and of what layers give."""
        return "bf16" if self.precision == "fp8" else self.precision


@dataclass(frozen=True)
class TrainingStep:
    """A step as a graph, and what its inputs are: `parameters` with their first values, `states` with 0.

    `forward` is the part up to the loss, `micro` the graph of a micro-batch that only adds its gradients to
    those before, where there are several. Inputs that are neither parameters nor states are the model's data,
    `target`, `learning_rate`, `step` (its number, from 1), in fp16 `loss_scale` and, where anything is drawn
    at random, `draw`: another number for each micro-batch.
    """

    graph: Graph
    forward: Graph
    parameters: Mapping[str, Const]
    states: Mapping[str, TensorType]
    recipe: Recipe
    scores: TensorType
    micro: Graph | None = None

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Return the graph of all micro-batches but the last, where there are several, and the last's."""
        return (self.graph,) if self.micro is None else (self.micro, self.graph)

    @property
    def data(self) -> tuple[str, ...]:
        """Return the names of the inputs that each batch gives, the target among them."""
        kept = {*self.parameters, *self.states, RATE, STEP, SCALE, DRAW}
        return tuple(name for name in self.graph.inputs if name not in kept)

    def kind_of(self, value: str) -> str:
        """Return what an input is: weights, optimizer or data."""
        if value in self.parameters:
            return "weights"
        return "optimizer" if value in self.states else "data"


def training_step(
    graph: Graph, stored: Mapping[str, Const], recipe: Recipe, pace: Throughput = BALANCE
) -> TrainingStep:
    """Return the step of a graph whose stored floats are inputs (`frontend.trainable`), each with its value.

    `pace` says what computing a value again takes.

    Raises `UserError` for a model without parameters, a loss that does not fit and ops without a gradient.
    """
    names = chosen(graph, stored, recipe.train, recipe.freeze)
    frozen = {name: const for name, const in stored.items() if name not in names}
    forward, scores = _forward(as_constants(graph, frozen), recipe)
    forward = redrawn(forward, DRAW).with_notes((*forward.notes, *frozen_note(list(frozen))))
    return written(forward, {name: stored[name] for name in names}, recipe, scores, pace)


def written(
    forward: Graph,
    parameters: Mapping[str, Const],
    recipe: Recipe,
    scores: TensorType,
    pace: Throughput = BALANCE,
    ties: Mapping[str, str] | None = None,
) -> TrainingStep:
    """Return the step of a model up to its loss, whose output of a type `scores` that loss is of.

    `ties` are parameters that are another one in a further place: both change by the sum of their gradients.
    """
    names = list(parameters)
    writer = _Writer(forward, names, recipe, ties or {})
    states = {name: kind for name in names for name, kind in writer.states_of(name).items()}
    micro = _within(writer.micro(), names, recipe, pace) if recipe.accumulate > 1 else None
    whole = writer.step()
    notes = (*whole.notes, *rows_note(forward, writer.looked_up, recipe.optimiser))
    whole = _within(whole.with_notes(notes), names, recipe, pace)
    return TrainingStep(whole, forward, parameters, states, recipe, scores, micro)


def _forward(graph: Graph, recipe: Recipe) -> tuple[Graph, TensorType]:
    """Return the model up to its loss, in the precision of the recipe, and the type of its scores."""
    own, to = own_dtype(graph), dtype(recipe.stored)
    for step in FORWARD:
        graph = step(graph)
    graph = SetPrecision(own.name, to.name)(unrounded(graph, own.name)) if own != to else graph
    for step in (Fold(), FuseAttention(), Fold()):
        graph = step(graph)
    graph = with_totals(graph)
    output = recipe.output or first_float(graph)
    whole = with_loss(graph, recipe.loss, output, TARGET, LOSS)
    return whole.with_nodes(whole.nodes, outputs=(LOSS,)).prune(), graph.type_of(output)


def _within(graph: Graph, names: Sequence[str], recipe: Recipe, pace: Throughput) -> Graph:
    """Return the graph in the recipe's products, that keeps for the way back what the recipe allows."""
    graph = in_eight_bits(graph, names) if recipe.precision == "fp8" else graph
    graph, kept = recompute(graph, recipe.keep, pace)
    return check(graph.with_notes((*graph.notes, *kept.notes)))


class _Writer:
    """Writes the graphs of a step: what they have in common is made anew for each."""

    def __init__(self, forward: Graph, names: Sequence[str], recipe: Recipe, ties: Mapping[str, str]) -> None:
        self.forward, self.names, self.recipe, self.ties = forward, names, recipe, ties
        self.narrow = recipe.precision != "fp32"
        self.masters = self.narrow and recipe.rounding == NEAREST
        self.scales = recipe.precision == "fp16"
        self.looked_up: dict[str, int] = {}  # how many rows a step changes of each table, at most
        tables = looked_up_of(forward, ties)
        self.moment = Moment(RATE, STEP, dtype(recipe.stored))
        self.rules = {name: recipe.optimiser.rule(name in tables) for name in names}

    def states_of(self, name: str) -> dict[str, TensorType]:
        """Return the inputs that a weight's step needs besides itself, by name."""
        kind = TensorType(FP32, self.forward.type_of(name).shape)
        slots = {f"{name}.{slot}": t for slot, t in self.rules[name].states(kind).items()}
        masters = {f"{name}.master": kind} if self.masters else {}
        sums = {f"{name}{SUM}": kind} if self.recipe.accumulate > 1 else {}
        return masters | slots | sums

    def micro(self) -> Graph:
        """Return the graph of a micro-batch: the sums of gradients, each with its own added."""
        graph, b, gradients = self._backward()
        outputs, places = [LOSS], dict[str, str]()
        for name in self.names:
            b.origin = f"{name}{OPTIMISER}"
            total = Arithmetic(b, name)("add", f"{name}{SUM}", gradients[name].values)
            places[named(b, total, f"{name}{SUM}.next")] = f"{name}{SUM}"
        whole = joined(graph, b, (*outputs, *places)).with_states(places)
        return only_read(whole)

    def step(self) -> Graph:
        """Return the graph of a whole step, or of its last micro-batch."""
        graph, b, gradients = self._backward()
        outputs, places = [LOSS], dict[str, str]()
        norm = self._norm(b, gradients) if self.recipe.clip or self.scales else ""
        finite = ""
        if norm:
            outputs.append(named(b, norm, NORM))
            finite = self._finite(b, norm) if self.scales else ""
        factor = self._factor(b, norm) if self.recipe.clip else ""
        for name in self.names:
            b.origin = f"{name}{OPTIMISER}"
            a, g = Arithmetic(b, name), self._total(b, name, gradients)
            g = g.with_values(a("mul", g.values, factor)) if factor else g
            updated = self._touched if g.indices else self._updated
            for old, new in updated(a, name, g, finite).items():
                places[named(b, new, f"{old}.next")] = old
        return joined(graph, b, (*outputs, *places)).with_states(places)

    def _backward(self) -> tuple[Graph, NodeBuilder, dict[str, Gradient]]:
        """Return the forward graph with further inputs, a builder over it, and gradients by name, in fp32."""
        scalars = {RATE: (), STEP: ()} | ({SCALE: ()} if self.scales else {})
        inputs = dict(self.forward.inputs) | {name: TensorType(FP32, ()) for name in scalars}
        if self.recipe.rounding == STOCHASTIC:
            inputs[DRAW] = TensorType(UINT32, ())
        for name in self.names:
            inputs |= self.states_of(name)
        f = self.forward
        graph = Graph(f.name, f.nodes, inputs, f.outputs, f.consts, f.notes)
        seed = LOSS
        if self.scales:
            scaled = Node("loss.scaled", "mul", (LOSS, SCALE), ("loss.scaled",), (graph.type_of(LOSS),))
            graph, seed = graph.with_nodes((*graph.nodes, scaled)), "loss.scaled"
        b = NodeBuilder(graph)
        gradients = gradients_of(b, graph, seed, self.names)
        return graph, b, {name: self._whole(b, name, g) for name, g in gradients.items()}

    def _whole(self, b: NodeBuilder, name: str, gradient: str) -> Gradient:
        """Return a gradient in fp32, without the loss's scale, averaged over micro-batches."""
        b.origin = f"{name}{OPTIMISER}"
        a, count = Arithmetic(b, name), self.recipe.accumulate
        found = self._by_rows(b, name, gradient) or Gradient(gradient)
        g = a.wide(found.values)
        g = a("div", g, SCALE) if self.scales else g
        return found.with_values(a("mul", g, 1 / count) if count > 1 else g)

    def _by_rows(self, b: NodeBuilder, name: str, gradient: str) -> Gradient | None:
        """Return a gradient by rows, where it is only that; micro-batches are summed by table."""
        recipe, tied = self.recipe, {*self.ties, *self.ties.values()}
        if recipe.embeddings != ROWS or recipe.accumulate > 1 or name in tied:
            return None
        found = by_rows(b, gradient)
        if found is None:
            return None
        count, rows = b.type_of(found.values).shape[0], b.type_of(gradient).shape[0]
        self.looked_up[name] = min(count, rows)
        return found

    def _norm(self, b: NodeBuilder, gradients: Mapping[str, Gradient]) -> str:
        """Return the length of all gradients together."""
        b.origin = f"{NORM}{OPTIMISER}"
        a, total = Arithmetic(b, NORM), ""
        for name in (n for n in self.names if n not in self.ties):
            g = self._total(b, name, gradients)
            values = self._rows(a, name, g).once if g.indices else g.values
            square = a.total(a("mul", values, values))
            total = a("add", total, square) if total else square
        return a("sqrt", total)

    def _rows(self, a: Arithmetic, name: str, gradient: Gradient) -> Touched:
        return Touched(a, gradient, self.forward.type_of(name).shape[0])

    def _total(self, b: NodeBuilder, name: str, gradients: Mapping[str, Gradient]) -> Gradient:
        """Return a weight's gradient of all micro-batches, and of all places that read it."""
        first = self.ties.get(name, name)
        places = [first, *(alias for alias, of in self.ties.items() if of == first)]
        each = [self._summed(b, place, gradients[place]) for place in places]
        whole = each[0].values
        for more in each[1:]:
            whole = Arithmetic(b, first)("add", whole, more.values)
        return each[0].with_values(whole)

    def _summed(self, b: NodeBuilder, name: str, gradient: Gradient) -> Gradient:
        """Return a gradient with those of the micro-batches before."""
        if self.recipe.accumulate == 1:
            return gradient
        a = Arithmetic(b, name)
        return gradient.with_values(a("add", f"{name}{SUM}", gradient.values))

    def _finite(self, b: NodeBuilder, norm: str) -> str:
        a = Arithmetic(b, NORM)
        return a("not", a("or", a("isinf", norm), a("isnan", norm)))

    def _factor(self, b: NodeBuilder, norm: str) -> str:
        """Return what gradients are multiplied by, so that their norm is `clip` at most."""
        a = Arithmetic(b, NORM)
        return a("min", a("div", self.recipe.clip, a("add", norm, CLIP_EPSILON)), 1)

    def _updated(self, a: Arithmetic, name: str, gradient: Gradient, finite: str) -> dict[str, str]:
        """Return the next value of a weight and of each of its states, by the input that it follows."""
        optimiser, b = self.rules[name], a.builder
        whole, after = gradient.values, dict[str, str]()
        state, master = self._slots(name), self._master(name)
        new, slots = optimiser.update(a, a.wide(master), whole, state, self.moment)
        if self.masters:
            after[master] = new
        after[name] = self._stored(a, new)
        after |= {state[slot]: value for slot, value in slots.items()}
        if finite:
            after = {old: a("where", finite, v, old) for old, v in after.items()}
        if self.recipe.accumulate > 1:  # begun anew behind a skipped step too
            kind = b.type_of(whole)
            after[f"{name}{SUM}"] = a("expand", a.number(0, whole), shape=kind.shape)
        return after

    def _touched(self, a: Arithmetic, name: str, gradient: Gradient, finite: str) -> dict[str, str]:
        """Return the same where only looked-up rows change; a step that is skipped puts them back."""
        rows, optimiser, master = self._rows(a, name, gradient), self.rules[name], self._master(name)
        state = self._slots(name)
        if not (optimiser.moves_all or self.narrow):
            taken = {slot: rows.of(old) for slot, old in state.items()}
            change, more = optimiser.increments(a, rows.once, taken, self.moment)
            added = {name: change} | {state[slot]: value for slot, value in more.items()}
            return {old: rows.added(old, value) for old, value in added.items()}
        before = {old: rows.of(old) for old in (master, *state.values())}
        taken = {slot: before[old] for slot, old in state.items()}
        new, slots = optimiser.update(a, a.wide(before[master]), rows.whole, taken, self.moment)
        after = {master: new} if self.masters or not self.narrow else {}
        after |= {state[slot]: value for slot, value in slots.items()}
        if finite:
            after = {old: a("where", finite, v, before[old]) for old, v in after.items()}
        put = {old: rows.put(old, value) for old, value in after.items()}
        if self.narrow:
            put[name] = rows.put(name, self._stored(a, after.get(master, new)))
        return put

    def _stored(self, a: Arithmetic, new: str) -> str:
        """Return a weight's next value, in fp32, as the weight is stored."""
        if self.recipe.rounding == STOCHASTIC:
            b = a.builder
            begin = rows_drawn(self.forward.nodes) + rows_drawn(b.nodes)
            bits = drawn(b, b.type_of(new).shape, begin, DRAW)
            share = a("mul", a.wide(a("shift_right", bits, FP32_REST)), 2.0 ** (FP32_REST - 32))
            new = a("round_random", new, share)
        return a.cast(new, dtype(self.recipe.stored))

    def _master(self, name: str) -> str:
        return f"{name}.master" if self.masters else name

    def _slots(self, name: str) -> dict[str, str]:
        """Return the optimiser's state of a weight, by slot."""
        kind = TensorType(FP32, self.forward.type_of(name).shape)
        return {slot: f"{name}.{slot}" for slot in self.rules[name].states(kind)}
