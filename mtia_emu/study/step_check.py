"""Steps that a table predicts, held to the same steps compiled as one graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..serving.step_table import GroupedSteps, ServingStep, StepCost
from ..zoo.llama_parts import StepPart
from .step_anchors import ServedModel

KINDS = ("decode", "prefill", "mixed")
MOST_PROMPTS, MOST_CONTEXTS = 3, 3  # of one step: each is a part of its graph


@dataclass(frozen=True)
class CheckedStep:
    """A step by kind, what its table predicts, and what it takes when it is compiled."""

    kind: str
    step: ServingStep
    predicted: StepCost
    seconds: float
    joules: float

    @property
    def error(self) -> float:
        """Return by what share of the compiled seconds the predicted ones are longer."""
        return self.predicted.seconds / self.seconds - 1

    @property
    def joules_error(self) -> float:
        """Return by what share of the compiled joules the predicted ones are more."""
        return self.predicted.joules / self.joules - 1


def check_steps(served: ServedModel, table: GroupedSteps, count: int, seed: int = 0) -> Iterator[CheckedStep]:
    """Yield random steps inside a table's limits, the kinds in turn, each predicted and compiled.

    Sizes are even in their logarithm. Sequences that decode have up to three contexts, each batch of one
    context a part of the graph: an attention for each, as a kernel without ragged batches does it.
    """
    rng = np.random.default_rng(seed)
    kinds = KINDS if table.limits.sequences > 1 else KINDS[:2]  # a mixed step has two at least
    for i in range(count):
        kind = kinds[i % len(kinds)]
        parts = _parts(table, kind, rng)
        step = step_of(parts)
        report = served.step(parts)
        yield CheckedStep(kind, step, table.step(step), report.seconds, report.joules)


def step_of(parts: list[StepPart]) -> ServingStep:
    """Return what a scheduler calls a step of parts."""
    return ServingStep(
        tuple((p.seq, p.past) for p in parts if p.seq > 1 for _ in range(p.batch)),
        tuple(p.past + 1 for p in parts if p.seq == 1 for _ in range(p.batch)),
    )


def _parts(table: GroupedSteps, kind: str, rng: np.random.Generator) -> list[StepPart]:
    limits, parts = table.limits, list[StepPart]()
    most = min(MOST_PROMPTS, max(1, limits.sequences - (kind == "mixed")))
    prompts = int(rng.integers(1, most + 1)) if kind != "decode" else 0
    tokens = limits.tokens // 2 if kind == "mixed" else limits.tokens
    for _ in range(prompts):
        chunk = _between(2, min(tokens // prompts, limits.chunk_tokens), rng)
        parts.append(StepPart(1, chunk, int(rng.integers(0, max(1, limits.past_tokens - chunk)))))
    if kind != "prefill":
        most = max(1, min(limits.decodes, limits.sequences - prompts, limits.tokens // 2))
        groups = min(int(rng.integers(1, MOST_CONTEXTS + 1)), most)
        most //= groups
        room = (table.memory_bytes - table.weight_bytes) // (table.kv_bytes_per_token * groups)
        for _ in range(groups):
            batch = _between(1, most, rng)
            context = _between(16, max(16, min(limits.context, room // batch)), rng)
            parts.append(StepPart(batch, 1, context - 1))
    return parts


def _between(low: int, high: int, rng: np.random.Generator) -> int:
    """Return a whole number between two, even in its logarithm."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(max(high, low))))))
