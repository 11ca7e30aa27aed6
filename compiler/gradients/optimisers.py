"""Optimisers as nodes: what a weight and its state become, given its gradient.

All arithmetic is in fp32. The formulas are those of torch.optim, whose names the options have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.types import FP32, DType, TensorType

from .arithmetic import Arithmetic

_SPELLING = re.compile(r"^([\w-]+)(?:\{([^{}]*)\})?$")
State = Mapping[str, str]
MOST = 1e38  # of an option: one that fp32 has


@dataclass(frozen=True)
class Moment:
    """What all weights share in a step: values of the learning rate, and of the step's number from 1.

    `products` are the floats that products of matrices are computed in.
    """

    rate: str
    step: str
    products: DType = FP32


@dataclass(frozen=True)
class Optimiser:
    """A rule that changes weights; its fields are its options. `lr` is the rate without a schedule."""

    slots: ClassVar[tuple[str, ...]] = ()
    lr: float = 1e-3
    weight_decay: float = 0.0

    @property
    def spelling(self) -> str:
        """Return the optimiser as the command line has it, with the options that are not the default."""
        changed = [
            (f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default
        ]
        text = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in changed)
        return f"{_name(type(self))}{{{text}}}" if text else _name(type(self))

    def rule(self, looked_up: bool) -> Optimiser:
        """Return the rule of a weight, given whether rows of it are looked up."""
        return self

    def states(self, weight: TensorType) -> dict[str, TensorType]:
        """Return the state of a weight, by name of its slot; all of it is 0 before the first step."""
        return {slot: TensorType(FP32, weight.shape) for slot in self.used}

    @property
    def used(self) -> tuple[str, ...]:
        """Return the slots that the options need."""
        return self.slots

    @property
    def moves_all(self) -> bool:
        """Return whether a step changes a weight, or its state, where the gradient is 0."""
        return bool(self.weight_decay)

    def update(
        self, a: Arithmetic, weight: str, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        """Return the next values of a weight and of its state."""
        raise NotImplementedError

    def increments(
        self, a: Arithmetic, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        """Return what is added to a weight and to its state, 0 where the gradient is.

        Only an optimiser that does not move all has them.
        """
        raise NotImplementedError

    def decayed(self, a: Arithmetic, weight: str, gradient: str) -> str:
        """Return the gradient with that of half the squared weights, times `weight_decay`."""
        if not self.weight_decay:
            return gradient
        return a("add", gradient, a("mul", weight, self.weight_decay))


@dataclass(frozen=True)
class Sgd(Optimiser):
    """Stochastic gradient descent, with `momentum` where it is not 0."""

    slots: ClassVar[tuple[str, ...]] = ("momentum",)
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def used(self) -> tuple[str, ...]:
        return self.slots if self.momentum else ()

    @property
    def moves_all(self) -> bool:
        return bool(self.weight_decay or self.momentum)

    def increments(
        self, a: Arithmetic, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        return a("mul", gradient, a("neg", at.rate)), {}

    def update(
        self, a: Arithmetic, weight: str, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        step, after = self.decayed(a, weight, gradient), {}
        if self.momentum:
            after["momentum"] = a("add", a("mul", state["momentum"], self.momentum), step)
            ahead = a("add", step, a("mul", after["momentum"], self.momentum))
            step = ahead if self.nesterov else after["momentum"]
        return a("sub", weight, a("mul", step, at.rate)), after


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015); its decay is part of the gradient."""

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")
    decouples: ClassVar[bool] = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @property
    def moves_all(self) -> bool:
        return True

    def update(
        self, a: Arithmetic, weight: str, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        g = gradient if self.decouples else self.decayed(a, weight, gradient)
        if self.decouples and self.weight_decay:
            weight = a("mul", weight, a("sub", 1, a("mul", at.rate, self.weight_decay)))
        mean = a("add", a("mul", state["mean"], self.beta1), a("mul", g, 1 - self.beta1))
        square = a("add", a("mul", state["square"], self.beta2), a("mul", a("mul", g, g), 1 - self.beta2))
        rate = a("div", at.rate, self._corrected(a, at, self.beta1))
        root = a("sqrt", self._corrected(a, at, self.beta2))
        bottom = a("add", a("div", a("sqrt", square), root), self.eps)
        change = a("div", a("mul", mean, rate), bottom)
        return a("sub", weight, change), {"mean": mean, "square": square}

    @staticmethod
    def _corrected(a: Arithmetic, at: Moment, beta: float) -> str:
        """Return 1 - beta^step: what a mean that began at 0 has of its weight.

        It is 2 t / (1 + t) with t = tanh(-step ln(beta) / 2): the difference would lose its digits in fp32.
        """
        t = a("tanh", a("mul", at.step, -math.log(beta) / 2)) if beta else a("tanh", a("mul", at.step, 99.0))
        return a("div", a("mul", t, 2), a("add", t, 1))


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose decay of weights is apart from the gradient (Loshchilov and Hutter, 2019)."""

    decouples: ClassVar[bool] = True
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Adagrad(Optimiser):
    """Adagrad (Duchi et al., 2011); with `rowwise` a row has one sum, of its mean squares."""

    slots: ClassVar[tuple[str, ...]] = ("sum",)
    lr: float = 1e-2
    eps: float = 1e-10
    rowwise: bool = False

    def states(self, weight: TensorType) -> dict[str, TensorType]:
        if self.rowwise and weight.rank > 1:
            return {"sum": TensorType(FP32, (*weight.shape[:-1], 1))}
        return super().states(weight)

    def update(
        self, a: Arithmetic, weight: str, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        change, more = self.increments(a, self.decayed(a, weight, gradient), state, at)
        return a("add", weight, change), {"sum": a("add", state["sum"], more["sum"])}

    def increments(
        self, a: Arithmetic, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        square, kind = a("mul", gradient, gradient), a.builder.type_of(gradient)
        if self.rowwise and kind.rank > 1:
            total = a("reduce_sum", square, axes=(kind.rank - 1,), keepdims=True)
            square = a("mul", total, 1 / kind.shape[-1])  # a mean, of columns that chips may share
        root = a("sqrt", a("add", state["sum"], square))
        change = a("div", a("mul", gradient, a("neg", at.rate)), a("add", root, self.eps))
        return change, {"sum": square}


NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5  # of a step: factors of X, (X Xt) X and (X Xt)^2 X
MATCHED_RMS = 0.2  # of a change's elements, about that of AdamW's


@dataclass(frozen=True)
class Muon(AdamW):
    """Muon (Jordan et al., 2024): the momentum of a matrix, its singular values brought near to 1.

    Five Newton-Schulz steps do that, products of matrices alone. A change is as large as AdamW's (Liu et al.,
    Muon is scalable for LLM training, 2025: `match_rms_adamw` of torch.optim.Muon). Of a weight [n, r, c]
    each matrix is one; tables and what is no matrix are AdamW's.
    """

    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    beta2: float = 0.95

    def rule(self, looked_up: bool) -> Optimiser:
        adamw = {f.name: getattr(self, f.name) for f in fields(AdamW)}
        return AdamW(**adamw) if looked_up else self

    def states(self, weight: TensorType) -> dict[str, TensorType]:
        return {"momentum": TensorType(FP32, weight.shape)} if _matrices(weight) else super().states(weight)

    def update(
        self, a: Arithmetic, weight: str, gradient: str, state: State, at: Moment
    ) -> tuple[str, dict[str, str]]:
        kind = a.builder.type_of(gradient)
        if not _matrices(kind):
            return super().update(a, weight, gradient, state, at)
        mean = a("add", a("mul", state["momentum"], self.momentum), a("mul", gradient, 1 - self.momentum))
        ahead = a("add", a("mul", mean, self.momentum), a("mul", gradient, 1 - self.momentum))
        change = _orthogonal(a, ahead if self.nesterov else mean, at.products)
        rate = a("mul", at.rate, MATCHED_RMS * max(kind.shape[-2:]) ** 0.5)
        if self.weight_decay:
            weight = a("mul", weight, a("sub", 1, a("mul", at.rate, self.weight_decay)))
        return a("sub", weight, a("mul", a.wide(change), rate)), {"momentum": mean}


def _matrices(kind: TensorType) -> bool:
    return kind.rank in (2, 3) and min(kind.shape[-2:]) > 1


def _orthogonal(a: Arithmetic, value: str, products: DType) -> str:
    """Return matrices [.., r, c] with singular values near 1 in place of theirs, by Newton-Schulz steps."""
    kind = a.builder.type_of(value)
    axes = (kind.rank - 2, kind.rank - 1)
    turn = (*range(kind.rank - 2), *axes[::-1])
    norm = a("sqrt", a("reduce_sum", a("mul", value, value), axes=axes, keepdims=True))
    x = a.cast(a("div", value, a("max", norm, 1e-7)), products)
    tall = kind.shape[-2] > kind.shape[-1]
    x = a("transpose", x, perm=turn) if tall else x
    for one, three, five in NEWTON_SCHULZ:
        square = a("matmul", x, a("transpose", x, perm=turn))
        more = a("add", a("mul", square, three), a("mul", a("matmul", square, square), five))
        x = a("add", a("mul", x, one), a("matmul", more, x))
    return a("transpose", x, perm=turn) if tall else x


RULES = (Sgd, Adam, AdamW, Adagrad, Muon)
OPTIMISERS: dict[str, type[Optimiser]] = {kind.__name__.lower(): kind for kind in RULES}


def _name(kind: type[Optimiser]) -> str:
    return kind.__name__.lower()


def optimiser(spelling: str) -> Optimiser:
    """Return the optimiser that a text names: `adamw{lr=3e-4,weight_decay=0.1}`.

    Raises `UserError` for another form, naming the nearest optimiser or option for one that is not known.
    """
    match = _SPELLING.match(spelling.strip())
    if match is None:
        raise UserError(f"--optimizer {spelling!r} (right: adamw{{lr=3e-4,weight_decay=0.1}})")
    if match[1] not in OPTIMISERS:
        raise refuse_unknown("optimizer", match[1], OPTIMISERS)
    kind = OPTIMISERS[match[1]]
    known = {f.name: f for f in fields(kind)}
    values: dict[str, float | bool] = {}
    for option in filter(None, map(str.strip, (match[2] or "").split(","))):
        key, _, text = map(str.strip, option.partition("="))
        if key not in known:
            raise refuse_unknown(f"option of {match[1]}", key, known)
        if key in values:
            raise UserError(f"--optimizer {spelling!r} gives {key} twice (right: once)")
        values[key] = _value(key, text, type(known[key].default))
    return kind(**values)


def _value(key: str, text: str, kind: type) -> float | bool:
    if kind is bool and text in ("true", "false"):
        return text == "true"
    try:
        value = float("nan") if kind is bool else float(text)
    except ValueError:
        value = float("nan")
    most = 1 if key.startswith(("beta", "momentum")) else MOST
    if not 0.0 <= value < most:
        right = "true or false" if kind is bool else f"a number from 0 to below {most:g}"
        raise UserError(f"--optimizer: {key}={text!r} (right: {right})")
    return value
