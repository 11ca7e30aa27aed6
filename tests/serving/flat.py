"""A step table whose times are a straight line, and loads, for tests of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtia_emu.serving.load import Load
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.step_table import ServingStep, StepCost, StepCosts, StepLimits

SYNCHRONOUS = EngineRules(ahead=False, gap_s=0.0)
ENDLESS = StepLimits(*[1 << 20] * 6)


@dataclass(frozen=True)
class FlatTable:
    """Steps of `step_s`, and `token_s` for each token and `key_s` for each key of a context besides."""

    step_s: float = 1.0
    token_s: float = 0.0
    key_s: float = 0.0
    watts: float = 10.0
    idle_w: float = 2.0
    memory_bytes: int = 1 << 20
    weight_bytes: int = 0
    activation_bytes: int = 0
    kv_bytes_per_token: int = 16
    machine: str = "flat"
    model: str = "none"
    limits: StepLimits = ENDLESS

    def step(self, step: ServingStep, /) -> StepCost:
        keys = sum(step.contexts) + sum(past for _, past in step.prefills)
        seconds = self.step_s + self.token_s * step.tokens + self.key_s * keys
        return StepCost(seconds, seconds * self.watts, 0.0)

    def decodes(self, contexts: np.ndarray, steps: int, /) -> StepCosts:
        each = [self.step(ServingStep((), tuple((contexts + n).tolist()))) for n in range(steps)]
        seconds = np.array([cost.seconds for cost in each])
        return StepCosts(seconds, seconds * self.watts, np.zeros(steps))


def load(*requests: tuple[float, int, int], **more: object) -> Load:
    """Return a load of (arrival, tokens in, tokens out)."""
    arrival, tokens_in, tokens_out = zip(*requests, strict=True)
    return Load("a load", np.array(arrival, float), np.array(tokens_in), np.array(tokens_out), **more)  # type: ignore[arg-type]
