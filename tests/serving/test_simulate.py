"""A service under load: laws of queues, conservation of tokens, replicas, handover, and what cannot fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.serving.answers import answers
from mtia_emu.serving.arrivals import TokenLengths, closed_loop, poisson, synthetic
from mtia_emu.serving.handover import Handover
from mtia_emu.serving.load import Load
from mtia_emu.serving.record import Log
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.simulate import Service, simulate

from .flat import SYNCHRONOUS, FlatTable, load

ONE_AT_A_TIME = replace(SYNCHRONOUS, max_sequences=1)


def service(rules: EngineRules = SYNCHRONOUS, table: FlatTable | None = None, **more: object) -> Service:
    return Service(table or FlatTable(), rules, **{"blocks": 4096, **more})  # type: ignore[arg-type]


def queue(utilisation: float, outputs: TokenLengths, count: int, seed: int) -> Log:
    """Return requests that come without memory to a server of one at a time, a second for each token."""
    mean = float(outputs.tokens @ outputs.weights / outputs.weights.sum())
    made = synthetic("queue", poisson(utilisation / mean, count, seed), TokenLengths.fixed(1), outputs, seed)
    return simulate(service(ONE_AT_A_TIME), made)


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_waiting_is_that_of_an_m_d_1_queue(utilisation: float) -> None:
    log = queue(utilisation, TokenLengths.fixed(1), 40_000, 1)
    expected = utilisation / (2 * (1 - utilisation))  # Pollaczek and Khinchine, service of 1 s
    assert (log.scheduled_s - log.arrival_s).mean() == pytest.approx(expected, rel=0.04)


def test_waiting_is_that_of_an_m_g_1_queue() -> None:
    outputs = TokenLengths(np.array([1, 9]), np.array([0.75, 0.25]))
    log = queue(0.5, outputs, 40_000, 2)
    mean, square = 3.0, 0.75 * 1 + 0.25 * 81
    expected = 0.5 / mean * square / (2 * (1 - 0.5))
    assert (log.scheduled_s - log.arrival_s).mean() == pytest.approx(expected, rel=0.05)


def test_littles_law_holds_in_the_queue() -> None:
    outputs = TokenLengths(np.array([5, 15]), np.ones(2))
    log = queue(0.6, outputs, 4000, 3)
    waits = float((log.scheduled_s - log.arrival_s).mean())
    found = answers(log, seed=None)
    # a step is when the queue is looked at, a tenth of a service
    assert found.fullness.mean_waiting == pytest.approx(found.served_rate_per_s * waits, rel=0.05)


RULES = st.builds(
    EngineRules,
    token_budget=st.integers(8, 40),
    max_sequences=st.integers(1, 8),
    block_tokens=st.sampled_from([1, 4, 16]),
    chunked_prefill=st.just(True),
    prefix_caching=st.booleans(),
    reserve_full_prompt=st.booleans(),
    ahead=st.booleans(),
    static=st.booleans(),
)
REQUESTS = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 40), st.integers(1, 30), st.integers(0, 3)),
    min_size=1, max_size=25,
)  # fmt: skip


def drawn(requests: list[tuple[float, int, int, int]], *, prefixes: bool) -> Load:
    ordered = sorted(requests)
    made = load(*((when, tokens_in, out) for when, tokens_in, out, _ in ordered))
    if not prefixes:
        return made
    names = tuple((kind, 10 + kind, 100 + n)[: r[1] // 16] for n, (*r, kind) in enumerate(ordered))
    return replace(made, prefixes=names, piece_tokens=16)


@settings(max_examples=120)
@given(RULES, REQUESTS, st.booleans(), st.integers(70, 200), st.integers(1, 3), st.booleans())
def test_no_token_is_lost_or_made_twice(
    rules: EngineRules, requests: list[tuple[float, int, int, int]], prefixes: bool, keys: int, engines: int,
    apart: bool,
) -> None:  # fmt: skip
    made = drawn(requests, prefixes=prefixes)
    handover = Handover(1, 1e3, 0.1) if apart else None
    table, blocks = FlatTable(0.5, 0.01, 0.001), -(-keys // rules.block_tokens)
    serves = service(rules, table, blocks=blocks, engines=engines, handover=handover, route="prefix-aware")
    log = simulate(serves, made)
    total_in, total_out = int(made.input_tokens.sum()), int(made.output_tokens.sum())
    assert sum(int(e.tokens_out.sum()) for e in log.engines) == total_out
    assert [len(log.token_times(n)) for n in range(len(made))] == made.output_tokens.tolist()
    assert all((np.diff(log.token_times(n)) > 0).all() for n in range(len(made)))
    keys_computed = sum(int(e.prompt_tokens.sum() + e.decoding.sum()) for e in log.engines)
    assert keys_computed + log.cached_tokens == total_in + total_out - len(made) + log.recomputed_tokens + (
        int((made.input_tokens * (made.output_tokens > 1)).sum()) if apart else 0
    )
    assert (log.scheduled_s >= log.arrival_s).all() and (log.first_token_s > log.scheduled_s).all()
    for steps, blocks in zip(log.engines, log.blocks, strict=True):
        assert (steps.start_s[1:] >= steps.end_s[:-1]).all() and steps.used_blocks.max(initial=0) <= blocks
        assert (steps.running <= rules.max_sequences).all()


@settings(max_examples=20)
@given(RULES, REQUESTS)
def test_the_same_again_gives_the_same_log(
    rules: EngineRules, requests: list[tuple[float, int, int, int]]
) -> None:
    made = drawn(requests, prefixes=True)
    one, two = (simulate(service(rules, blocks=200), made) for _ in range(2))
    assert np.array_equal(one.last_token_s, two.last_token_s) and one.parts == two.parts


@pytest.mark.parametrize("seed", range(4))
def test_more_capacity_is_never_worse_beyond_two_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = TokenLengths(np.array([8, 64, 200]), rng.uniform(0.1, 1, 3))
    made = synthetic("x", poisson(1.5, 400, seed), lengths, lengths, seed)
    table = FlatTable(0.05, 0.001, 0.00002)
    means = []
    for factor in (1, 2, 4, 8):
        serves = service(replace(SYNCHRONOUS, max_sequences=64), table, blocks=60 * factor)
        means.append(float(simulate(serves, made).e2e_s.mean()))
    assert all(more <= 1.02 * less for less, more in pairwise(means)), means


def test_a_closed_loop_keeps_as_many_open_as_it_says() -> None:
    made = closed_loop(3, 12, TokenLengths.fixed(2), TokenLengths.fixed(4))
    log = simulate(service(), made)
    assert log.arrival_s.tolist() == [0.0] * 3 + [4.0] * 3 + [8.0] * 3 + [12.0] * 3
    assert (log.engines[0].running == 3).all()


def test_engines_share_requests_and_time() -> None:
    made = load(*((0.0, 4, 5) for _ in range(6)))
    one, three = (simulate(service(ONE_AT_A_TIME, engines=n), made) for n in (1, 3))
    assert one.end_s == 30.0 and three.end_s == 10.0
    assert sorted(three.engine.tolist()) == [0, 0, 1, 1, 2, 2] and three.chips == 3


def test_a_cache_is_handed_over_before_its_sequence_decodes() -> None:
    # 4 tokens of 16 bytes at 64 bytes a second after 1 s: 2 s, one cache after another
    made = load((0.0, 4, 3), (0.0, 4, 3), (0.0, 4, 1))
    log = simulate(service(handover=Handover(1, 64.0, 1.0)), made)
    assert log.first_token_s.tolist() == [1.0, 1.0, 1.0]
    assert log.transfer_s is not None and log.transfer_s.tolist() == [2.0, 4.0, 0.0]
    assert log.last_token_s.tolist() == [5.0, 7.0, 1.0] and log.prefill_engines == 1


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: simulate(service(blocks=4), load((0.0, 60, 6))),
         "request 1 needs a context of 65 tokens, and the cache has 64"),
        (lambda: simulate(service(replace(SYNCHRONOUS, chunked_prefill=False)), load((0.0, 4000, 1))),
         "a prompt of 4000 tokens never fits a step of 2048"),
        (lambda: simulate(service(table=FlatTable(weight_bytes=1 << 30), blocks=None), load((0.0, 1, 1))),
         "weights, activations and reserve take 1.07 GB"),
        (lambda: service(engines=0), "0 engines"),
        (lambda: service(memory_share=float("nan")), "memory_share is nan"),
        (lambda: service(route="x"), "unknown router 'x'"),
        (lambda: simulate(service(blocks=0), load((0.0, 1, 1))), "0 blocks of cache"),
        (lambda: Handover(0, 1.0), "0 engines for prompts"),
        (lambda: Handover(1, float("nan")), "at nan bytes/s"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said(make: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()  # type: ignore[operator]


def test_a_context_beyond_the_table_is_refused_before_it_starts() -> None:
    limits = replace(FlatTable().limits, context=50)
    with pytest.raises(
        UserError, match="needs a context of 65 tokens, and the step table of flat ends at 50"
    ):
        simulate(service(table=FlatTable(limits=limits)), load((0.0, 60, 6)))


def test_blocks_that_do_not_divide_the_pieces_of_prefixes_are_refused() -> None:
    rules = replace(SYNCHRONOUS, block_tokens=300)
    assert simulate(service(rules), load((0.0, 600, 1))).end_s == 1.0
    with pytest.raises(UserError, match="pieces of 512 tokens, which blocks of 300 do not divide"):
        simulate(service(rules), load((0.0, 600, 1), prefixes=((1,),)))


def test_the_cache_is_what_weights_and_activations_leave() -> None:
    table = FlatTable(memory_bytes=100_000, weight_bytes=40_000, activation_bytes=10_000)
    assert service(table=table, blocks=None, reserve_bytes=2_400).cache_blocks == (90_000 - 52_400) // 256
