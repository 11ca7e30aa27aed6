"""The scheduler with measured kernel times against two real vLLM runs of Llama-3.1-8B: nothing is fitted.

What is taken from the runs is how they were set up: 128 sequences, 2,048 tokens a step, and the blocks of
the cache. The RTX 4090 had 2,587: the only number of which all its logged shares of the cache are multiples.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mtia_emu.serving.load import Load
from mtia_emu.serving.measured_kernels import read_kernels
from mtia_emu.serving.record import Log
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.simulate import Service, simulate
from mtia_emu.serving.step_table import GroupedSteps, ServingStep, StepCost, StepCosts, TableFacts

MEASURED = Path(__file__).resolve().parents[3] / "shared/reference/serving"
pytestmark = pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured runs are not there")
BLOCKS = {"RTX4090": 2587, "RTXPRO6000": 35_913}
RULES = EngineRules(max_sequences=128)
# errors in percent: the mean, and the value that 1 % of the requests exceed
TTFT, TPOT, E2E = "ttft", "tpot", "e2e"
MOST = 5


@cache
def table(card: str) -> GroupedSteps:
    facts = TableFacts(card, "llama-3.1-8b", "bf16", "measured", 24 << 30, 16_060_522_496, 131_072)
    return read_kernels(MEASURED / f"vllm_steps_{card}_llama-3.1-8b_tp1.csv", facts, 32)


@cache
def seen(card: str) -> tuple[Load, dict[str, np.ndarray]]:
    with (MEASURED / "vllm_requests.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["device"] == card]
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name.endswith("_s")}
    tokens = [np.array([int(row[name]) for row in rows]) for name in ("input_tokens", "output_tokens")]
    arrival, first, last = column["arrival_s"], column["first_token_s"], column["last_token_s"]
    measured = {TTFT: first - arrival, TPOT: (last - first) / (tokens[1] - 1), E2E: last - arrival}
    return Load(card, arrival, *tokens), measured


def errors(card: str, log: Log) -> dict[str, tuple[float, float]]:
    """Return how far mean and p99 are from the measured ones, in percent."""
    found = {TTFT: log.ttft_s, TPOT: log.tpot_s, E2E: log.e2e_s}
    out = {}
    for name, values in seen(card)[1].items():
        pairs = [
            (found[name].mean(), values.mean()),
            (np.percentile(found[name], 99), np.percentile(values, 99)),
        ]
        mean, p99 = (100 * (ours / theirs - 1) for ours, theirs in pairs)
        out[name] = (float(mean), float(p99))
    return out


def run(card: str, rules: EngineRules = RULES, blocks: int | None = None, steps: object = None) -> Log:
    return simulate(Service(steps or table(card), rules, blocks=blocks or BLOCKS[card]), seen(card)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("card", BLOCKS)
def test_latencies_are_those_that_were_measured(card: str) -> None:
    for name, (mean, p99) in errors(card, run(card)).items():
        assert abs(mean) <= MOST and abs(p99) <= MOST, (name, mean, p99)


def test_the_limit_of_the_cache_is_what_makes_them_wait() -> None:
    mean, _ = errors("RTX4090", run("RTX4090", blocks=1 << 20))[TTFT]
    assert mean < -60


@dataclass(frozen=True)
class WithoutContexts:
    """A table that takes each decoding sequence to see one key."""

    table: GroupedSteps

    def __getattr__(self, name: str) -> object:
        return getattr(self.table, name)

    def step(self, step: ServingStep) -> StepCost:
        return self.table.step(replace(step, contexts=(1,) * len(step.contexts)))

    def decodes(self, contexts: np.ndarray, steps: int) -> StepCosts:
        cost = self.table.decodes(np.ones(len(contexts), np.int64), 1)
        return StepCosts(*(np.repeat(x, steps) for x in (cost.seconds, cost.joules, cost.error_share)))


@pytest.mark.parametrize("card", BLOCKS)
def test_steps_without_contexts_are_far_too_short(card: str) -> None:
    mean, _ = errors(card, run(card, steps=WithoutContexts(table(card))))[TTFT]
    assert mean < -20


def test_finding_its_own_blocks_again_matters_to_who_was_preempted() -> None:
    cold = run("RTX4090", replace(RULES, prefix_caching=False))
    assert cold.cached_tokens == 0 and errors("RTX4090", cold)[TTFT][0] > 5
