"""Passes that are plainly wrong, each with a graph on which it fires, and right ones that look like them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from mtia_emu.compiler.graph import Match, Node, Rewrite
from mtia_emu.compiler.passes.base import Rule, Rules, become, building, scalar

Build = Callable[[Node, Match], "Rewrite | None"]


@dataclass(frozen=True)
class Planted(Rules):
    """A pass of one rule, offered each node once."""

    rule: Build = field(default=lambda node, match: None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self.rule,)

    rounds = 1  # what it makes, it is not offered


def to_operand(op: str, position: int = 0) -> Build:
    """Return a rule that leaves an op out: one of its operands takes its place."""

    def rule(node: Node, match: Match) -> Rewrite | None:
        return become(node, building(node, match), node.inputs[position]) if node.op == op else None

    return rule


def to_op(op: str, other: str, *order: int, **attrs: object) -> Build:
    """Return a rule that makes an op another one, its operands in this order, some attributes changed."""

    def rule(node: Node, match: Match) -> Rewrite | None:
        if node.op != op:
            return None
        new = building(node, match)
        kept = {k: v for k, v in node.attrs.items() if other == op} | attrs
        return become(node, new, new.add(other, *(node.inputs[i] for i in order or (0,)), **kept))

    return rule


def _unbounded_exp(node: Node, match: Match) -> Rewrite | None:
    bound = match.producer(node.inputs[0], "max") if node.op == "exp" else None
    if bound is None:
        return None
    new = building(node, match)
    return become(node, new, new.add("exp", bound.inputs[0]))


def _nan_by_less(node: Node, match: Match) -> Rewrite | None:
    if node.op != "isnan":
        return None
    new = building(node, match)
    return become(node, new, new.add("less", node.inputs[0], node.inputs[0]))


def _nan_by_equal(node: Node, match: Match) -> Rewrite | None:
    if node.op != "isnan":
        return None
    new = building(node, match)
    return become(node, new, new.add("not", new.add("equal", node.inputs[0], node.inputs[0])))


def _half_away(node: Node, match: Match) -> Rewrite | None:
    """Round ties away from zero: sign(x) floor(|x| + 0.5)."""
    if node.op != "round":
        return None
    new, x = building(node, match), node.inputs[0]
    shifted = new.add("add", new.add("abs", x), new.constant(0.5, node.type.dtype.numpy))
    return become(node, new, new.add("mul", new.add("sign", x), new.add("floor", shifted)))


def _floors(node: Node, match: Match) -> Rewrite | None:
    """Divide integers as Python does: floor(x / c), by x - mod(x, c)."""
    if node.op != "div":
        return None
    new, (x, c) = building(node, match), node.inputs
    return become(node, new, new.add("div", new.add("sub", x, new.add("mod", x, c)), c))


def _from_the_front(node: Node, match: Match) -> Rewrite | None:
    """Take an index below 0 for 0."""
    if node.op != "gather":
        return None
    new, (x, ids) = building(node, match), node.inputs
    zero = new.constant(0, match.type_of(ids).dtype.numpy)
    return become(node, new, new.add("gather", x, new.add("max", ids, zero), axis=0))


def _without_small_bias(node: Node, match: Match) -> Rewrite | None:
    const = match.const(node.inputs[1]) if node.op == "add" else None
    if const is None or np.abs(const.array()).max() > 1e-3:
        return None
    return become(node, building(node, match), node.inputs[0])


def _transposed_bias(node: Node, match: Match) -> Rewrite | None:
    """Broadcast a row as a column."""
    if node.op != "add":
        return None
    new, (x, row) = building(node, match), node.inputs
    column = new.add("reshape", row, shape=(match.type_of(row).shape[-1], 1))
    return become(node, new, new.add("add", x, column))


def _cast_behind(node: Node, match: Match) -> Rewrite | None:
    """Leave out a cast there and back."""
    there = match.producer(node.inputs[0], "cast") if node.op == "cast" else None
    if there is None:
        return None
    return become(node, building(node, match), there.inputs[0])


def _sum_of_mean(node: Node, match: Match) -> Rewrite | None:
    """Make a mean a sum, right for one row alone."""
    if node.op != "reduce_mean":
        return None
    new = building(node, match)
    return become(node, new, new.add("reduce_sum", node.inputs[0], **node.attrs))


def _epsilon(node: Node, match: Match) -> Rewrite | None:
    if node.op != "rmsnorm":
        return None
    return Rewrite((replace(node, attrs={**node.attrs, "epsilon": 1e-6}),))


def _further(node: Node, match: Match) -> Rewrite | None:
    """Slice one row further on."""
    if node.op != "slice":
        return None
    new, attrs = building(node, match), node.attrs
    (first, *starts), (last, *ends) = attrs["starts"], attrs["ends"]
    moved = {"starts": (first + 1, *starts), "ends": (last + 1, *ends), "steps": attrs["steps"]}
    return become(node, new, new.add("slice", node.inputs[0], **moved))


def _strict(node: Node, match: Match) -> Rewrite | None:
    """Take x <= c for x < c."""
    if node.op != "less_equal" or scalar(match, node.inputs[1]) is None:
        return None
    new = building(node, match)
    return become(node, new, new.add("less", *node.inputs))


def _times_zero(node: Node, match: Match) -> Rewrite | None:
    """Take x - x for 0, which it is not of NaN and infinities."""
    if node.op != "sub" or node.inputs[0] != node.inputs[1]:
        return None
    new = building(node, match)
    zero = new.constant(np.zeros(node.type.shape), node.type.dtype.numpy)
    return become(node, new, zero)


def _without_maximum(node: Node, match: Match) -> Rewrite | None:
    """Write a softmax without taking the largest number away first."""
    if node.op != "softmax":
        return None
    new = building(node, match)
    powers = new.add("exp", node.inputs[0])
    return become(node, new, new.add("div", powers, new.add("reduce_sum", powers, axes=(1,), keepdims=True)))


def _slightly_off(node: Node, match: Match) -> Rewrite | None:
    """Add to powers what only small ones show."""
    if node.op != "exp":
        return None
    new = building(node, match)
    return become(node, new, new.add("add", new.add("exp", node.inputs[0]), new.constant(1e-7, np.float32)))


def _regrouped(node: Node, match: Match) -> Rewrite | None:
    """Make (x + y) + z the sum x + (y + z): right, but for rounding."""
    first = match.producer(node.inputs[0], "add") if node.op == "add" else None
    if first is None:
        return None
    new = building(node, match)
    return become(node, new, new.add("add", first.inputs[0], new.add("add", first.inputs[1], node.inputs[1])))


def _split_product(node: Node, match: Match) -> Rewrite | None:
    """Sum a product over two halves of k: right, but for rounding."""
    if node.op != "matmul":
        return None
    new, (a, b) = building(node, match), node.inputs
    (m, k), n = match.type_of(a).shape, match.type_of(b).shape[-1]
    parts = [
        new.add(
            "matmul",
            new.add("slice", a, starts=(0, i), ends=(m, i + k // 2), steps=(1, 1)),
            new.add("slice", b, starts=(i, 0), ends=(i + k // 2, n), steps=(1, 1)),
        )
        for i in (0, k // 2)
    ]
    return become(node, new, new.add("add", *parts))


def to_number(op: str, value: float) -> Build:
    """Return a rule that gives an op another constant for its second operand."""

    def rule(node: Node, match: Match) -> Rewrite | None:
        if node.op != op:
            return None
        new, kind = building(node, match), match.type_of(node.inputs[1]).dtype
        return become(node, new, new.add(op, node.inputs[0], new.constant(value, kind.numpy)))

    return rule


def _number_for_nan(node: Node, match: Match) -> Rewrite | None:
    """Take roots of what is below zero for zero."""
    if node.op != "sqrt":
        return None
    new = building(node, match)
    return become(node, new, new.add("sqrt", new.add("relu", node.inputs[0])))


def _guarded_log(node: Node, match: Match) -> Rewrite | None:
    """Take the logarithm of zero for zero."""
    if node.op != "log":
        return None
    new, zero = building(node, match), np.float32
    is_zero = new.add("equal", node.inputs[0], new.constant(0.0, zero))
    return become(
        node, new, new.add("where", is_zero, new.constant(0.0, zero), new.add("log", node.inputs[0]))
    )


def _mean_of_one_more(node: Node, match: Match) -> Rewrite | None:
    """Divide a sum by one more than it has terms."""
    if node.op != "reduce_mean":
        return None
    new, terms = building(node, match), match.type_of(node.inputs[0]).shape[-1]
    share = new.constant(1 / (terms + 1), node.type.dtype.numpy)
    return become(node, new, new.add("mul", new.add("reduce_sum", node.inputs[0], **node.attrs), share))


def _through_halves(node: Node, match: Match) -> Rewrite | None:
    """Pass by fp16, which nothing says."""
    if node.op != "sigmoid":
        return None
    new = building(node, match)
    half = new.add("sigmoid", new.add("cast", node.inputs[0], to="fp16"))
    return become(node, new, new.add("cast", half, to="fp32"))


def _scaled_first(node: Node, match: Match) -> Rewrite | None:
    """Scale an operand of a product rather than the product: right, but for rounding."""
    product = match.producer(node.inputs[0], "matmul") if node.op == "mul" else None
    if product is None:
        return None
    new, (x, y) = building(node, match), product.inputs
    return become(node, new, new.add("matmul", new.add("mul", x, node.inputs[1]), y))


def _distributed(node: Node, match: Match) -> Rewrite | None:
    """Make (x + y) z the sum x z + y z: right, but for rounding."""
    total = match.producer(node.inputs[0], "add") if node.op == "mul" else None
    if total is None:
        return None
    new, z = building(node, match), node.inputs[1]
    return become(node, new, new.add("add", *(new.add("mul", x, z) for x in total.inputs)))


X, Y = "in %x : fp32[4,4]", "in %y : fp32[4,4]"
SIX, LOW = "const %c : fp32[] = [6.0]", "const %c : fp32[] = [-4.0]"


def graph(*lines: str, out: str = "r") -> str:
    """Return the text of a graph of these lines."""
    return "\n".join(["graph g {", *(f"  {line}" for line in lines), f"  out %{out}", "}"]) + "\n"


CLIP = graph(X, SIX, "%r : fp32[4,4] = min(%x, %c)")
EXP = graph(X, LOW, "%b : fp32[4,4] = max(%x, %c)", "%r : fp32[4,4] = exp(%b)")
IS_NAN = graph(X, "%r : bool[4,4] = isnan(%x)")
WHERE = graph(X, "in %m : bool[4,4]", "const %c : fp32[] = [-1e9]", "%r : fp32[4,4] = where(%m, %x, %c)")
CHOICE = graph(X, Y, "in %m : bool[4,4]", "%r : fp32[4,4] = where(%m, %x, %y)")
SUB = graph(X, Y, "%r : fp32[4,4] = sub(%x, %y)")
SOFTMAX = graph(X, "%r : fp32[4,4] = softmax(%x) {axis=1}")
SUM = graph(X, "%r : fp32[4] = reduce_sum(%x) {axes=[1], keepdims=false}")
BIAS = graph(X, "const %b : fp32[4] = [1e-4, -2e-4, 5e-5, 1e-5]", "%r : fp32[4,4] = add(%x, %b)")
ROW = graph(X, "const %b : fp32[4] = [1.0, 2.0, 3.0, 4.0]", "%r : fp32[4,4] = add(%x, %b)")
SLICE = graph(X, "%r : fp32[2,4] = slice(%x) {ends=[3, 4], starts=[1, 0], steps=[1, 1]}")
NORM = graph(
    X, "const %w : fp32[4] = [1.0, 1.0, 1.0, 1.0]", "%r : fp32[4,4] = rmsnorm(%x, %w) {epsilon=1e-05}"
)
ROUND = graph(X, "%r : fp32[4,4] = round(%x)")
DIVIDE = graph("in %n : int32[8]", "const %c : int32[] = [3]", "%r : int32[8] = div(%n, %c)")
GATHER = graph("in %x : fp32[5,2]", "in %i : int64[6]", "%r : fp32[6,2] = gather(%x, %i) {axis=0}")
CASTS = graph(X, '%h : fp16[4,4] = cast(%x) {to="fp16"}', '%r : fp32[4,4] = cast(%h) {to="fp32"}')
MEAN = graph(X, "%r : fp32[4] = reduce_mean(%x) {axes=[1], keepdims=false}")
AT_MOST = graph(X, SIX, "%r : bool[4,4] = less_equal(%x, %c)")
NOTHING = graph(X, "%r : fp32[4,4] = sub(%x, %x)")
MASKED = graph(
    X,
    "in %mask : int64[4,4]",
    "const %one : fp32[] = [1.0]",
    "const %low : fp32[] = [-1e4]",
    '%f : fp32[4,4] = cast(%mask) {to="fp32"}',
    "%g : fp32[4,4] = sub(%one, %f)",
    "%h : fp32[4,4] = mul(%g, %low)",
    "%a : fp32[4,4] = add(%x, %h)",
    "%r : fp32[4,4] = softmax(%a) {axis=1}",
)
TINY = graph(
    X, LOW, "%b : fp32[4,4] = mul(%x, %x)", "%k : fp32[4,4] = mul(%b, %c)", "%r : fp32[4,4] = exp(%k)"
)
THREE = graph(X, Y, "in %z : fp32[4,4]", "%s : fp32[4,4] = add(%x, %y)", "%r : fp32[4,4] = add(%s, %z)")
PRODUCT = graph("in %x : fp32[4,64]", "in %y : fp32[64,4]", "%r : fp32[4,4] = matmul(%x, %y)")
HALF, LEAST = MASKED.replace("fp32", "fp16"), MASKED.replace("-1e4", "-3.4028235e38")
WINDOW = graph(
    "in %x : fp32[6,6]", "const %q : fp32[6,1] = [0, 1, 2, 3, 4, 5]",
    "const %k : fp32[1,6] = [0, 1, 2, 3, 4, 5]", "const %c : fp32[] = [3.0]",
    "const %low : fp32[] = [-1e9]", "%d : fp32[6,6] = sub(%q, %k)",
    "%p : bool[6,6] = less_equal(%d, %c)", "%r : fp32[6,6] = where(%p, %x, %low)",
)  # fmt: skip
THREE_AT_MOST = "const %c : fp32[] = [3.0]"
TWICE = graph(X, "const %two : fp32[] = [2.0]", THREE_AT_MOST, "%d : fp32[4,4] = mul(%x, %two)",
              "%r : bool[4,4] = less_equal(%d, %c)")  # fmt: skip
CLAMPED = graph(
    "in %x : fp16[4,4]", "in %y : fp16[4,4]", "const %c : fp16[] = [10000]",
    "%s : fp16[4,4] = add(%x, %y)", "%r : fp16[4,4] = min(%s, %c)",
)  # fmt: skip
SCALED = graph("in %x : bf16[4,8]", "const %c : bf16[] = [0.125]", "%r : bf16[4,8] = mul(%x, %c)")
BRAIN_MEAN = graph("in %x : bf16[4,32]", "%r : bf16[4] = reduce_mean(%x) {axes=[1], keepdims=false}")
BESIDE_CODES = graph(
    X, Y, SIX, '%q : int8[4,4], %s : fp32[4,1] = quantise_rows(%y) {to="int8"}',
    "%r : fp32[4,4] = mul(%x, %c)",
    out="r\n  out %q",
)  # fmt: skip
BESIDE_GUARD = graph(
    X, "in %q : fp32[1,2,4,8]",
    '%a : fp32[1,2,4,8] = attention(%q, %q, %q) {guarded=true, tape="1 -> t0 | t0 = copy(x0) : fp32"}',
    "%r : fp32[4,4] = sqrt(%x)", out="r\n  out %a",
)  # fmt: skip
NARROW_PRODUCT = graph(
    "in %x : bf16[4,32]", "in %y : bf16[32,4]", "const %c : bf16[] = [0.3]",
    "%p : bf16[4,4] = matmul(%x, %y)", "%r : bf16[4,4] = mul(%p, %c)",
)  # fmt: skip
SUM_TIMES = graph(X, Y, "in %z : fp32[4,4]", "%s : fp32[4,4] = add(%x, %y)", "%r : fp32[4,4] = mul(%s, %z)")

WRONG: dict[str, tuple[str, Build]] = {
    "a bound is dropped": (CLIP, to_operand("min")),
    "an exponential forgets its operand's bound": (EXP, _unbounded_exp),
    "no number is less than itself": (IS_NAN, _nan_by_less),
    "a mask is forgotten": (WHERE, to_operand("where", 1)),
    "a mask of integers is forgotten": (MASKED, to_operand("add")),
    "the choices of a where are swapped": (CHOICE, to_op("where", "where", 0, 2, 1)),
    "the operands of a difference are swapped": (SUB, to_op("sub", "sub", 1, 0)),
    "a softmax over the wrong axis of a square": (SOFTMAX, to_op("softmax", "softmax", 0, axis=0)),
    "a sum over the wrong axis of a square": (SUM, to_op("reduce_sum", "reduce_sum", 0, axes=(0,))),
    "a bias near zero is dropped": (BIAS, _without_small_bias),
    "a row is broadcast as a column": (ROW, _transposed_bias),
    "a slice is one off": (SLICE, _further),
    "a norm has another epsilon": (NORM, _epsilon),
    "ties are rounded away from zero": (ROUND, _half_away),
    "integers are divided downwards": (DIVIDE, _floors),
    "an index from the end is taken for the first": (GATHER, _from_the_front),
    "a narrowing cast is dropped": (CASTS, _cast_behind),
    "a mean is a sum": (MEAN, _sum_of_mean),
    "at most is less than": (AT_MOST, _strict),
    "a difference from itself is zero": (NOTHING, _times_zero),
    "a softmax overflows": (SOFTMAX, _without_maximum),
    "tiny results are off": (TINY, _slightly_off),
    "a mask of the least number is forgotten": (LEAST, to_operand("add")),
    "a mask of halves is forgotten": (HALF, to_operand("add")),
    "a bound far out in fp16 is dropped": (CLAMPED, to_operand("min")),
    "a window in floats is one off": (WINDOW, to_op("less_equal", "less", 0, 1)),
    "twice a number is at most, or less than": (TWICE, to_op("less_equal", "less", 0, 1)),
    "a scale is off by the roundings of bf16": (SCALED, to_number("mul", 0.128)),
    "a mean in bf16 is of one more": (BRAIN_MEAN, _mean_of_one_more),
    "halves that nothing says": (graph(X, "%r : fp32[4,4] = sigmoid(%x)"), _through_halves),
    "a scale is off beside codes": (BESIDE_CODES, to_number("mul", 6.2)),
    "a root is guarded beside attention that is": (BESIDE_GUARD, _number_for_nan),
    "the logarithm of zero is zero": (
        graph(X, "%p : fp32[4,4] = relu(%x)", "%r : fp32[4,4] = log(%p)"),
        _guarded_log,
    ),
}
RIGHT: dict[str, tuple[str, Build]] = {
    "NaN differs from itself": (IS_NAN, _nan_by_equal),
    "a sum is regrouped": (THREE, _regrouped),
    "a product is summed by halves": (PRODUCT, _split_product),
    "a sum is multiplied term by term": (SUM_TIMES, _distributed),
    "a product in bf16 is scaled first": (NARROW_PRODUCT, _scaled_first),
    "a sum of one is its mean": (
        graph("in %x : fp32[4,1]", "%r : fp32[4] = reduce_mean(%x) {axes=[1], keepdims=false}"),
        _sum_of_mean,
    ),
}
