"""The scheduler alone beside two real vLLM runs: latencies, and what steps in which all decode really take.

    python docs/score_vllm.py [FOLDER]

FOLDER has the runs of Llama-3.1-8B on two cards (requests, kernel times by size), as measured with vLLM 0.19
(casys-kaist/LLMServingSim@5daddb21, bench/examples). Two requests whose first tokens came in the same step,
and which end while nobody's prompt is computed, say what the steps between their ends took: the time
between, over the difference of their tokens. Beside it stands what kernel times say of these steps, with the
host's gap. Nothing is fitted.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtia_emu.serving.load import Floats, Ints, Load
from mtia_emu.serving.measured_kernels import read_kernels
from mtia_emu.serving.rules import GAP_S, EngineRules
from mtia_emu.serving.simulate import Service, simulate
from mtia_emu.serving.step_table import GroupedSteps, ServingStep, TableFacts

RUNS = Path(__file__).parents[2] / "shared/reference/serving"
BLOCKS = {"RTX4090": 2587, "RTXPRO6000": 35_913}
RULES = EngineRules(max_sequences=128)
LEAST_STEPS = 20  # between two ends, for a mean


@dataclass(frozen=True)
class MeasuredRun:
    """Requests of a run on a card, a value each."""

    load: Load
    scheduled_s: Floats
    first_s: Floats
    last_s: Floats
    preempted: bool

    @property
    def measured(self) -> dict[str, Floats]:
        """Return each latency of each request."""
        arrival, tokens = self.load.arrival_s, self.load.output_tokens
        tpot = (self.last_s - self.first_s) / (tokens - 1)
        return {"first token": self.first_s - arrival, "after": tpot, "last": self.last_s - arrival}


def read_run(folder: Path, card: str) -> MeasuredRun:
    """Return the run of a card."""
    with (folder / "vllm_requests.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["device"] == card]
    names = ("arrival_s", "scheduled_s", "first_token_s", "last_token_s")
    arrival, *times = (np.array([float(row[name]) for row in rows]) for name in names)
    tokens = (np.array([int(row[name]) for row in rows]) for name in ("input_tokens", "output_tokens"))
    return MeasuredRun(Load(card, arrival, *tokens), *times, preempted=card == "RTX4090")


def kernels(folder: Path, card: str) -> GroupedSteps:
    """Return the step table of the card's kernel times."""
    facts = TableFacts(card, "llama-3.1-8b", "bf16", "measured", 24 << 30, 16_060_522_496, 131_072)
    return read_kernels(folder / f"vllm_steps_{card}_llama-3.1-8b_tp1.csv", facts, 32)


def latencies(run: MeasuredRun, table: GroupedSteps) -> None:
    """Print how far means and 99th percentiles are from those measured."""
    log = simulate(Service(table, RULES, blocks=BLOCKS[run.load.name]), run.load)
    found = dict(zip(run.measured, (log.ttft_s, log.tpot_s, log.e2e_s), strict=True))
    for name, values in run.measured.items():
        mean = found[name].mean() / values.mean() - 1
        p99 = np.percentile(found[name], 99) / np.percentile(values, 99) - 1
        print(f"{run.load.name:10}  {name:11}  mean {mean:+6.1%}  p99 {p99:+6.1%}")


def windows(run: MeasuredRun, table: GroupedSteps) -> list[tuple[int, float, float]]:
    """Return for stretches of steps in which all decode: sequences, seconds of a step, those of kernels."""
    found = []
    tokens = run.load.output_tokens
    for i, j in np.argwhere(np.equal.outer(run.first_s, run.first_s)):
        steps = int(tokens[j] - tokens[i])
        start, end = run.last_s[i], run.last_s[j]
        if steps < LEAST_STEPS or ((run.scheduled_s < end) & (run.first_s > start)).any():
            continue
        middle = (start + end) / 2
        contexts = contexts_at(run, middle)
        cost = table.step(ServingStep((), tuple(contexts.tolist()))).seconds + GAP_S
        found.append((len(contexts), float(end - start) / steps, cost))
    return sorted(found)


def contexts_at(run: MeasuredRun, time_s: float) -> Ints:
    """Return the contexts of the sequences that decode at a time, each token as long as the others."""
    decoding = (run.first_s <= time_s) & (run.last_s >= time_s)
    share = (time_s - run.first_s) / (run.last_s - run.first_s)
    seen = run.load.input_tokens + share * (run.load.output_tokens - 1) + 1
    return np.asarray(seen[decoding], np.int64)


def main() -> None:
    """Print latencies of both cards, then steps of the one on which nobody was preempted."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else RUNS
    for card in BLOCKS:
        run, table = read_run(folder, card), kernels(folder, card)
        latencies(run, table)
        if run.preempted:
            continue  # whose first token says nothing of the steps that it was out
        for count, step_s, kernels_s in windows(run, table):
            print(f"{card}  {count:3} decode  {step_s * 1e3:5.2f} ms a step, kernels {kernels_s * 1e3:5.2f}  "
                  f"{kernels_s / step_s - 1:+.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
