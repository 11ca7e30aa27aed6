"""Mixtures in which every expert computes every row, in the ways that exporters spell them."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import outcomes, with_weights
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.passes.legalise import Legalise
from mtia_emu.compiler.passes.route_experts import RouteExperts
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import load_chip
from mtia_emu.testing.grower import Grower, Seeded

EXPERTS, EACH, K, F = 4, 2, 6, 8
LEADS = ((5,), (2, 3))


class Mixture:
    """A mixture of random spelling: how the mask is made, and how experts are added up."""

    def __init__(self, seed: int, lead: tuple[int, ...]) -> None:
        self.g, self.lead = Grower(Seeded(seed), "fp32"), lead
        self.x = self.g.input((*lead, K))
        scores = self.g.op("matmul", self.x, self.g.const((K, EXPERTS)))
        best, self.chosen = self.g.b.adds("topk", scores, axis=len(lead), k=EACH, largest=True)
        self.shares = self.g.op("softmax", best, axis=len(lead))

    def mask(self) -> str:
        """Return shares [.., experts], zero where a row is not routed."""
        g, last = self.g, len(self.lead)
        if g.chance():
            zeros = g.b.put(g.b.fresh("zeros"), _zeros((*self.lead, EXPERTS)))
            put = g.op("scatter_elements", zeros, self.chosen, self.shares, axis=last, reduction="none")
            return g.op("div", put, g.number(0.5)) if g.chance() else put
        column = g.op("reshape", self.chosen, shape=(*self.lead, EACH, 1))
        hot = g.op("cast", g.op("equal", column, g.b.constant(np.arange(EXPERTS))), to="fp32")
        share = g.op("reshape", self.shares, shape=(*self.lead, EACH, 1))
        return g.op("reduce_sum", g.either("mul", hot, share), axes=(last,), keepdims=False)

    def apart(self) -> str:
        """Return experts one by one, each times its column, added up."""
        g, last = self.g, len(self.lead)
        mask = self.mask() if g.chance() else ""
        total = g.op("mul", self.x, g.number(0.5))
        bias = g.chance()
        for expert in range(EXPERTS):
            if mask:
                starts, ends = (*(0 for _ in self.lead), expert), (*self.lead, expert + 1)
                share = g.op("slice", mask, starts=starts, ends=ends, steps=(1,) * (last + 1))
            else:
                mine = g.op("cast", g.op("equal", self.chosen, g.b.constant(np.int64(expert))), to="fp32")
                share = g.op("reduce_sum", g.either("mul", mine, self.shares), axes=(last,), keepdims=True)
            inner = g.op("matmul", self.x, g.const((K, F), 0.4), *([g.const((F,))] if bias else []))
            inner = g.op("silu", inner)
            made = g.op("matmul", inner, g.const((F, K), 0.4))
            total = g.either("add", total, g.either("mul", made, share))
        return total

    def together(self) -> str:
        """Return batches of experts, times the mask, summed."""
        g = self.g
        tokens = int(np.prod(self.lead))
        mask = g.op("reshape", self.mask(), shape=(tokens, EXPERTS)) if len(self.lead) > 1 else self.mask()
        x = g.op("reshape", self.x, shape=(tokens, K))
        flat = len(self.lead) > 1  # the mask's reshape is nothing that the pass sees through
        wide = g.op("reshape", g.op("tile", x, repeats=(EXPERTS, 1)), shape=(EXPERTS, tokens, K))
        inner = g.op("matmul", wide, g.const((EXPERTS, K, F), 0.4))
        gate = g.op("matmul", wide, g.const((EXPERTS, K, F), 0.4))
        inner = g.op("mul", g.op("silu", inner), gate)
        made = g.op("matmul", inner, g.const((EXPERTS, F, K), 0.4))
        if g.chance() and not flat:
            rows, column = (
                g.op("transpose", made, perm=(1, 2, 0)),
                g.op("reshape", mask, shape=(tokens, EXPERTS, 1)),
            )
            return g.op("reshape", g.op("matmul", rows, column), shape=(tokens, K))
        share = g.op("reshape", g.op("transpose", mask, perm=(1, 0)), shape=(EXPERTS, tokens, 1))
        return g.op("reduce_sum", g.either("mul", made, share), axes=(0,), keepdims=False)

    def graph(self, how: str) -> Graph:
        """Return the graph of the mixture."""
        self.g.keep(getattr(self, how)())
        return check(self.g.graph())


def _zeros(shape: tuple[int, ...]) -> Const:
    return Const.of(np.zeros(shape, np.float32))


def routed(graph: Graph) -> int:
    made = check(RouteExperts()(Legalise()(graph)))
    left = sum(n.op == "matmul" for n in made.nodes)
    assert left == 1 or not sum(n.op == "expert_matmul" for n in made.nodes), "an expert computes every row"
    return sum(n.op == "expert_matmul" for n in made.nodes)


@pytest.mark.parametrize("how", ["apart", "together"])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_mask_hides_is_not_computed(how: str, seed: int) -> None:
    graph = Mixture(seed, LEADS[seed % 2] if how == "apart" else LEADS[0]).graph(how)
    assert routed(graph) == (2 if how == "apart" else 3)
    inputs = random_inputs(graph, seed)
    right = evaluate(graph, inputs)
    program = compile_graph(graph, load_chip("tiny"), dtype="fp32").program
    made = execute(program, load_chip("tiny"), inputs, core_library(), check=True).outputs
    for name, value in right.items():
        assert np.abs(made[name] - value).max() < 1e-4 * np.abs(value).max()


HIDDEN = """graph g {{
  in %x : fp32[5,6]
  in %scores : fp32[5,4]
  const %w1 : fp32[4,6,8] = absent
  const %w2 : fp32[4,8,6] = absent
  const %shift : fp32[4,1,8] = absent
  const %zeros : fp32[5,4] = [{zeros}]
  in %others : fp32[5,4]
  in %even : bool[1,5,1]
  in %some : bool[5,4]
  const %one : fp32[1] = [1.0]
  %best : fp32[5,2], %picked : int64[5,2] = topk(%scores) {{axis=1, k=2, largest=true}}
  %chosen : int64[5,2] = {chosen}
  %more : fp32[5,2], %elsewhere : int64[5,2] = topk(%others) {{axis=1, k=2, largest=true}}
  %apart : fp32[5,4] = scatter_elements(%zeros, %elsewhere, %more) {{axis=1, reduction="none"}}
  %apart_turned : fp32[4,5] = transpose(%apart) {{perm=[1, 0]}}
  %other : fp32[4,5,1] = reshape(%apart_turned) {{shape=[4, 5, 1]}}
  %put : fp32[5,4] = scatter_elements(%zeros, %chosen, %best) {{axis=1, reduction="{how}"}}
  %mask : fp32[5,4] = {mask}
  %turned : fp32[4,5] = transpose(%mask) {{perm=[1, 0]}}
  %share : fp32[4,5,1] = reshape(%turned) {{shape=[4, 5, 1]}}
  %row : fp32[1,5,6] = reshape(%x) {{shape=[1, 5, 6]}}
  %own : fp32[4,5,6] = mul(%row, %share)
  %inner : fp32[4,5,8] = matmul(%own, %w1)
  %moved : fp32[4,5,8] = {moved}
  %made : fp32[4,5,6] = matmul(%moved, %w2)
  %y : fp32[5,6] = reduce_sum(%made) {{axes=[0], keepdims=false}}
  out %y
}}"""


def hidden(
    mask: str = "relu(%put)",
    moved: str = "silu(%inner)",
    zero: str = "0.0",
    how: str = "none",
    chosen: str = 'cast(%picked) {to="int64"}',
) -> str:
    return HIDDEN.format(mask=mask, moved=moved, zeros=", ".join([zero] * 20), how=how, chosen=chosen)


SEEN = "an expert that a row is not routed to adds to it, or is no product of its rows"


def test_what_makes_something_of_nothing_stays() -> None:
    assert outcomes("route-experts", hidden("mul(%put, %put)", "add(%inner, %shift)")) == [SEEN]
    assert outcomes("route-experts", hidden("mul(%put, %put)", "sigmoid(%inner)")) == [SEEN]
    assert outcomes("route-experts", hidden("mul(%put, %put)", "div(%shift, %inner)")) == [SEEN]
    assert outcomes("route-experts", hidden("mul(%put, %put)", "where(%even, %inner, %shift)")) == [SEEN]


def test_another_routing_s_mask_is_none_of_this_one_s() -> None:
    assert outcomes("route-experts", hidden("mul(%put, %put)", "mul(%inner, %other)")) == [SEEN]


def test_a_mask_that_hides_nothing_is_none() -> None:
    assert outcomes("route-experts", hidden("sigmoid(%put)")) == [SEEN]
    assert outcomes("route-experts", hidden("where(%some, %put, %one)")) == [SEEN]
    twice = hidden("mul(%put, %put)", "mul(%inner, %inner)", chosen='cast(%best) {to="int64"}')
    assert outcomes("route-experts", twice) == [], "scores made whole may name an expert twice"
    assert outcomes("route-experts", hidden("mul(%put, %put)", zero="1.0")) == []


@pytest.mark.parametrize("how", ["mul", "min", "max"])
def test_shares_that_meet_the_zeros_are_not_what_a_mask_has(how: str) -> None:
    assert outcomes("route-experts", hidden("mul(%put, %put)", how=how)) == []


def test_a_share_on_the_way_in_hides_as_well() -> None:
    with pytest.raises(AssertionError, match="fires"):
        outcomes("route-experts", hidden("mul(%put, %put)"))


ROUTES = {
    "best": "in %scores : fp32[5,4]\n"
    "%best : fp32[5,1], %chosen : int64[5,1] = topk(%scores) {axis=1, k=1, largest=true}",
    "more": "in %scores : fp32[5,8]\n"
    "%best : fp32[5,1], %chosen : int64[5,1] = topk(%scores) {axis=1, k=1, largest=true}",
    "given": "in %chosen : int64[5,1]\nin %best : fp32[5,1]",
}
HOT = """graph g {{
  in %x : fp16[1,5,6]
  {route}
  const %w : fp16[4,6,8] = absent
  const %far : fp32[1] = [1.0]
  const %numbers : int64[4] = {numbers}
  %column : int64[5,1,1] = reshape(%chosen) {{shape=[5, 1, 1]}}
  %same : bool[5,1,4] = equal(%column, %numbers)
  %hot : fp32[5,1,4] = cast(%same) {{to="fp32"}}
  %less : fp32[5,1] = sub(%best, %far)
  %each : fp32[5,1,1] = reshape(%less) {{shape=[5, 1, 1]}}
  %product : fp32[5,1,4] = mul(%hot, %each)
  %wide : fp32[5,4] = {reduced}(%product) {{axes=[1], keepdims=false}}
  %mask : fp16[5,4] = cast(%wide) {{to="fp16"}}
  %turned : fp16[4,5] = transpose(%mask) {{perm=[1, 0]}}
  %share : fp16[4,5,1] = reshape(%turned) {{shape=[4, 5, 1]}}
  %made : fp16[4,5,8] = matmul(%x, %w)
  %own : fp16[4,5,8] = mul(%made, %share)
  %y : fp16[5,8] = reduce_sum(%own) {{axes=[0], keepdims=false}}
  out %y
}}"""


def hot(route: str, numbers: str = "[0, 1, 2, 3]", reduced: str = "reduce_sum") -> str:
    return HOT.format(route=ROUTES[route], numbers=numbers, reduced=reduced)


@pytest.mark.parametrize("route", ["more", "given"])
def test_a_row_may_go_to_none_of_the_experts(route: str) -> None:
    """Numbers of experts that others have, or -1, are equal to none of those that are here."""
    assert outcomes("route-experts", hot(route)) == []
    assert outcomes("route-experts", hot("best", numbers="[3, 2, 1, 0]")) == []


@pytest.mark.parametrize("reduced", ["reduce_sum", "reduce_max"])
def test_shares_are_cast_as_their_mask_is(reduced: str) -> None:
    """The largest of a share below nothing and of zeros is no share."""
    graph = with_weights(check(text.parse(hot("best", reduced=reduced))))
    made = check(RouteExperts()(graph))
    inputs = random_inputs(graph, 1)
    assert sum(n.op == "expert_matmul" for n in made.nodes) == 1
    assert np.array_equal(evaluate(made, inputs)["y"], evaluate(graph, inputs)["y"])


def test_one_number_for_all_features_keeps_their_width() -> None:
    g = Grower(Seeded(3), "fp32")
    best, chosen = g.b.adds("topk", g.input((5, EXPERTS)), axis=1, k=EACH, largest=True)
    zeros = g.b.put(g.b.fresh("zeros"), _zeros((5, EXPERTS)))
    mask = g.op("scatter_elements", zeros, chosen, best, axis=1, reduction="none")
    wide = g.op("expand", g.op("reshape", mask, shape=(5, EXPERTS, 1)), shape=(5, EXPERTS, F))
    g.keep(g.op("reduce_sum", g.op("silu", wide), axes=(1,), keepdims=False))
    graph = check(g.graph())
    inputs = random_inputs(graph, 1)
    right, made = evaluate(graph, inputs), evaluate(check(RouteExperts()(graph)), inputs)
    assert all(np.allclose(made[name], value, atol=1e-6) for name, value in right.items())


def test_weights_beside_one_another_are_those_of_each_expert() -> None:
    g = Grower(Seeded(5), "fp32")
    best, chosen = g.b.adds("topk", g.input((5, EXPERTS)), axis=1, k=EACH, largest=True)
    zeros = g.b.put(g.b.fresh("zeros"), _zeros((5, EXPERTS)))
    mask = g.op("scatter_elements", zeros, chosen, best, axis=1, reduction="none")
    wide = g.op("matmul", g.input((5, K)), g.const((K, EXPERTS * F)))
    made = g.op("reshape", wide, shape=(5, EXPERTS, F))
    share = g.op("reshape", mask, shape=(5, EXPERTS, 1))
    g.keep(g.op("reduce_sum", g.op("mul", made, share), axes=(1,), keepdims=False))
    graph = check(g.graph())
    routed_graph, inputs = check(RouteExperts()(graph)), random_inputs(graph, 1)
    assert any(n.op == "expert_matmul" for n in routed_graph.nodes)
    right, found = evaluate(graph, inputs), evaluate(routed_graph, inputs)
    assert all(np.allclose(found[name], value, atol=1e-5) for name, value in right.items())
