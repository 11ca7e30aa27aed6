"""The plan's linear programme: variables, constraints, and its solution by HiGHS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import UserError
from .quantity import Array

LIMITS = ("power", "capital", "wafers")
PENALTY = 30.0  # of a unit of work that falls short, in the dearest device's cost for it


@dataclass(frozen=True)
class Problem:
    """Numbers of a plan: D devices, W works, T steps; dollars of a step, as they are paid then.

    A device bought in step s serves for `life` steps. `capital_usd`, `held_usd`, `run_usd` and `power_mw`,
    [D, T], are of one device bought in a step: at once, a step it is owned, a step it serves, and in service.
    """

    devices: tuple[str, ...]
    works: tuple[str, ...]
    demand: Array  # [W, T]: units a second, at the peak with its reserve
    rates: Array  # [W, D]: units a second of a device; 0 where it does not do the work
    is_own: Array  # [D]
    life: int
    capital_usd: Array
    held_usd: Array
    run_usd: Array
    power_mw: Array
    discount: Array  # [T]
    ready: Array  # [D]: the first step in which it can be bought
    design_usd: Array  # [D]: once, if any is bought
    wafers: Array  # [D]: of a device
    supply: Array  # [D]: devices a step
    installed: Array  # [D]: there at the start, of all ages
    limits: Mapping[str, float]

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return int(self.demand.shape[1])

    def readied(self, ready: Array) -> Problem:
        """Return the same plan with devices ready in other steps."""
        return replace(self, ready=ready)


@dataclass(frozen=True)
class Solution:
    """A solved plan; `duals` are what one more of a limit saves, [T], in dollars of the start."""

    cost_usd: float
    bought: Array  # [D, T]
    serving: Array
    owned: Array
    placed: Array  # [W, D, T]
    shortage: Array  # [W, T], share of the demand
    designed: Array  # [D]
    used: Mapping[str, Array]  # [T] by limit
    duals: Mapping[str, Array]
    supply_duals: Array  # [D, T]


@dataclass(frozen=True)
class _Columns:
    """Where variables stand: buy[d, s]; use[k] for each (w, d, s, t); the installed; short; design."""

    buy: Array  # [D, T]
    uses: Array  # [K, 4]: w, d, s, t; s is -1 for installed devices
    first_use: int
    short: Array  # [W, T]
    design: Array  # [D]

    @property
    def count(self) -> int:
        return int(self.design[-1]) + 1


def _columns(p: Problem) -> _Columns:
    d_count, w_count, steps = len(p.devices), len(p.works), p.steps
    uses = [
        (w, d, s, t)
        for w in range(w_count)
        for d in range(d_count)
        if p.rates[w, d] > 0
        for t in range(steps)
        for s in range(-1, t + 1)
        if (s < 0 and p.installed[d] > 0) or (s >= p.ready[d] and s > t - p.life)
    ]
    buy = np.arange(d_count * steps).reshape(d_count, steps)
    first = buy.size
    short = first + len(uses) + np.arange(w_count * steps).reshape(w_count, steps)
    design = first + len(uses) + short.size + np.arange(d_count)
    return _Columns(buy, np.array(uses, dtype=int).reshape(-1, 4), first, short, design)


def left_of_installed(p: Problem) -> Array:
    """Return the devices that were there and still serve, [D, T]: of all ages, so they go evenly."""
    return p.installed[:, None] * np.maximum(1 - np.arange(p.steps) / p.life, 0.0)


class _Rows:
    """Constraints `row . x <= bound`, as triplets of a sparse matrix."""

    def __init__(self) -> None:
        self.data: list[tuple[int, int, float]] = []
        self.bounds: list[float] = []

    def add(self, columns: Array, values: Array | float, bound: float) -> int:
        """Add a row; return its number."""
        number = len(self.bounds)
        spread = np.broadcast_to(np.asarray(values, dtype=float), np.shape(columns))
        self.data += [(number, int(c), float(v)) for c, v in zip(columns, spread, strict=True)]
        self.bounds.append(bound)
        return number


def _cost(p: Problem, c: _Columns) -> Array:
    """Return the price of each variable, in dollars of the start."""
    price = np.zeros(c.count)
    for s in range(p.steps):
        owned = p.discount[s : s + p.life].sum()
        price[c.buy[:, s]] = p.held_usd[:, s] * owned
    _, d, s, t = c.uses.T
    price[c.first_use + np.arange(len(c.uses))] = p.run_usd[d, np.maximum(s, 0)] * p.discount[t]
    best = np.maximum(p.rates.max(axis=1), 1e-300)
    dearest = (p.held_usd + p.run_usd).max() * p.life + 1.0
    price[c.short] = (PENALTY * dearest / best)[:, None]
    price[c.design] = p.design_usd
    return price


def _constraints(p: Problem, c: _Columns) -> tuple[_Rows, dict[str, Array]]:
    """Return the constraints, and the rows of those whose dual values are asked for."""
    rows, marked = _Rows(), {name: np.full(p.steps, -1) for name in LIMITS}
    w, d, s, t = c.uses.T
    column = c.first_use + np.arange(len(c.uses))
    left = left_of_installed(p)
    for step in range(p.steps):
        now = t == step
        for work in range(len(p.works)):
            mine = now & (w == work)
            columns = np.append(column[mine], c.short[work, step])
            rows.add(columns, np.append(-p.rates[work, d[mine]], -1.0), -p.demand[work, step])
        for device in range(len(p.devices)):
            for bought in range(-1, step + 1):
                mine = now & (d == device) & (s == bought)
                if mine.any() and bought < 0:
                    rows.add(column[mine], 1.0, left[device, step])
                elif mine.any():
                    columns = np.append(column[mine], c.buy[device, bought])
                    rows.add(columns, np.append(np.ones(mine.sum()), -1.0), 0.0)
        marked["power"][step] = rows.add(
            column[now], p.power_mw[d[now], np.maximum(s[now], 0)], p.limits["power"]
        )
        marked["capital"][step] = rows.add(c.buy[:, step], p.capital_usd[:, step], p.limits["capital"])
        marked["wafers"][step] = rows.add(c.buy[:, step], p.wafers, p.limits["wafers"])
    return rows, marked


def _bounds(p: Problem, c: _Columns, designed: Array | None) -> tuple[Array, Array]:
    """Return the least and the most of each variable; an own device that is not designed is not bought."""
    low, high = np.zeros(c.count), np.full(c.count, np.inf)
    for device in range(len(p.devices)):
        high[c.buy[device]] = p.supply[device]
        high[c.buy[device, : p.ready[device]]] = 0.0
        if designed is not None and p.is_own[device] and not designed[device]:
            high[c.buy[device]] = 0.0
    high[c.design] = np.where(p.is_own, 1.0, 0.0)
    if designed is not None:
        low[c.design] = high[c.design] = designed & p.is_own
    return low, high


def solve(p: Problem, designed: Array | None = None) -> Solution:
    """Return the plan of least cost; with `designed`, [D], that choice is held and dual values are given."""
    try:
        from scipy import optimize, sparse
    except ImportError:
        raise UserError("a plan needs scipy: pip install 'mtia-emu[plan]'") from None
    c = _columns(p)
    rows, marked = _constraints(p, c)
    low, high = _bounds(p, c, designed)
    if designed is None:
        most = np.minimum(p.demand.max() * 4 / np.where(p.rates > 0, p.rates, np.inf).min(axis=0), 1e12)
        for device in np.flatnonzero(p.is_own):
            columns = np.append(c.buy[device], c.design[device])
            rows.add(columns, np.append(np.ones(p.steps), -most[device]), 0.0)
    number, column, value = (np.array(x) for x in zip(*rows.data, strict=True))
    shape = (len(rows.bounds), c.count)
    matrix = sparse.coo_matrix((value, (number, column)), shape=shape).tocsr()
    price, bounds = _cost(p, c), np.array(rows.bounds)
    scale = max(float(np.abs(price).max()), 1.0)
    if designed is None and p.is_own.any():
        whole = np.zeros(c.count)
        whole[c.design] = 1
        found: Any = optimize.milp(
            price / scale, integrality=whole, bounds=optimize.Bounds(low, high),
            constraints=optimize.LinearConstraint(matrix, -np.inf, bounds),
        )  # fmt: skip
    else:
        finite = np.isfinite(bounds)
        found = optimize.linprog(
            price / scale, A_ub=matrix[finite], b_ub=bounds[finite], bounds=np.column_stack([low, high]),
            method="highs",
        )  # fmt: skip
    if found.x is None:
        raise UserError(f"no plan was found: {found.message}")
    return _solution(p, c, found, (price, scale, bounds, marked, matrix))


def _solution(p: Problem, c: _Columns, found: Any, built: tuple[Any, ...]) -> Solution:
    price, scale, bounds, marked, matrix = built
    x = np.maximum(found.x, 0.0)
    w, d, _, t = c.uses.T
    placed = np.zeros((len(p.works), len(p.devices), p.steps))
    np.add.at(placed, (w, d, t), x[c.first_use : c.first_use + len(c.uses)])
    bought = x[c.buy]
    owned = left_of_installed(p) + np.stack(
        [bought[:, max(step - p.life + 1, 0) : step + 1].sum(axis=1) for step in range(p.steps)], axis=1
    )
    used = matrix @ x
    duals = np.zeros(len(bounds))
    supply = np.zeros(bought.shape)
    if hasattr(found, "ineqlin"):
        duals[np.isfinite(bounds)] = -found.ineqlin.marginals * scale
        supply = -found.upper.marginals[c.buy] * scale
    share = x[c.short] / np.maximum(p.demand, 1e-300)
    return Solution(
        float(price @ x), bought, placed.sum(axis=0), owned, placed, share, x[c.design] > 0.5,
        {name: used[marked[name]] for name in LIMITS}, {name: duals[marked[name]] for name in LIMITS}, supply,
    )  # fmt: skip
