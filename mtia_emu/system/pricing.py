"""Rounds of sends on a system: how long one takes by one protocol, and what it moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import UserError
from .library import Protocol
from .schedule import SWITCH, Round
from .sharing import Use, last_end_s
from .topology import Route, System

Array = np.ndarray


@dataclass(frozen=True)
class Flows:
    """What a round sends, a flow for each route of each send: its bytes and what it uses."""

    bytes: Array
    use: Use


@dataclass(frozen=True)
class Pricing:
    """How long rounds take between some ranks of a system, by one protocol.

    Resources are the lanes of links at the share that the protocol reaches; a chip's sending and receiving,
    where the protocol limits them; its reducer; and its DRAM, where that is what is sent.
    """

    system: System
    ranks: tuple[int, ...]
    protocol: Protocol
    piece_bytes: float | Array
    _fixed: dict[object, float] = field(default_factory=dict)
    _moved: dict[object, Flows] = field(default_factory=dict)

    def fixed_s(self, step: Round) -> float:
        """Return what a round takes before its first byte: hop, latency of its routes, and posts."""
        key = step.key()
        if key not in self._fixed:
            latency = max((r.latency_s for send in self._routed(step) for r in send), default=0.0)
            posted = step.source[step.source != SWITCH]
            posts = np.bincount(posted, minlength=len(self.ranks)) / self.protocol.parallel_posts
            costs = [self.system.endpoints[r].post_s + self.protocol.peer_s for r in self.ranks]
            post = float(np.max(np.ceil(posts) * costs))
            self._fixed[key] = self.protocol.hop_s + latency + post
        return self._fixed[key]

    def seconds(self, steps: tuple[Round, ...]) -> float:
        """Return what the bytes of rounds take that run side by side."""
        parts = [self.flows(step) for step in steps]
        offsets = np.cumsum([0, *(len(p.bytes) for p in parts)])
        use = Use(
            np.concatenate([p.use.flow + at for p, at in zip(parts, offsets, strict=False)]),
            np.concatenate([p.use.resource for p in parts]),
            np.concatenate([p.use.weight for p in parts]),
        )
        return last_end_s(use, np.concatenate([p.bytes for p in parts]), self.capacity)

    @cached_property
    def capacity(self) -> Array:
        """Return the bytes a second of each resource: lanes, then four of each chip."""
        system, protocol = self.system, self.protocol
        lanes = np.zeros(1 + max(link.lane for link in system.links))
        for link in system.links:
            lanes[link.lane] = link.bytes_per_s * protocol.share
        most = protocol.most_bytes_per_s or np.inf
        chips = [
            (most, most, e.reduce_bytes_per_s, e.dram_bytes_per_s if e.buffers == "dram" else np.inf)
            for e in system.endpoints
        ]
        return np.concatenate([lanes, np.asarray(chips, float).ravel()])

    def flows(self, step: Round) -> Flows:
        """Return the flows of a round; equal rounds are looked up."""
        key = step.key()
        if key not in self._moved:
            self._moved[key] = self._flows(step)
        return self._moved[key]

    def _flows(self, step: Round) -> Flows:
        amount: list[float] = []
        flow: list[int] = []
        resource: list[int] = []
        weight: list[float] = []
        columns = (step.source.tolist(), step.target.tolist(), (step.pieces * self.piece_bytes).tolist())
        for source, target, bytes_, routes in zip(*columns, self._routed(step), strict=True):
            for route in routes:
                used = [(self.system.links[i].lane, 1.0) for i in route.links]
                used += self._ends(source, target, step.adds)
                flow += [len(amount)] * len(used)
                resource += [r for r, _ in used]
                weight += [w for _, w in used]
                amount.append(bytes_ * route.share)
        use = Use(np.asarray(flow, np.int64), np.asarray(resource, np.int64), np.asarray(weight))
        return Flows(np.asarray(amount), use)

    def link_bytes(self, step: Round) -> Array:
        """Return the bytes that a round puts on each link of the system."""
        out = np.zeros(len(self.system.links))
        amounts = (step.pieces * self.piece_bytes).tolist()
        for bytes_, routes in zip(amounts, self._routed(step), strict=True):
            for route in routes:
                out[list(route.links)] += bytes_ * route.share
        return out

    def _ends(self, source: int, target: int, adds: bool) -> list[tuple[int, float]]:
        """Return what a byte uses of the chips that it leaves and reaches: place and weight of resources."""
        first = len(self.capacity) - 4 * len(self.system.ranks)
        out: list[tuple[int, float]] = []
        if source != SWITCH:
            base = first + 4 * self.ranks[source]
            out += [(base, 1.0), (base + 3, 1.0)]
        if target != SWITCH:
            base = first + 4 * self.ranks[target]
            out += [(base + 1, 1.0), (base + 3, 2.0 if adds else 1.0)]
            out += [(base + 2, 1.0)] if adds else []
        return [(place, w) for place, w in out if np.isfinite(self.capacity[place])]

    def _routed(self, step: Round) -> list[tuple[Route, ...]]:
        pairs = zip(step.source.tolist(), step.target.tolist(), strict=True)
        return [self._way(source, target) for source, target in pairs]

    def _way(self, source: int, target: int) -> tuple[Route, ...]:
        system = self.system
        if SWITCH not in (source, target):
            return system.routes(self.ranks[source], self.ranks[target])
        switch = reducing_switch(system, self.ranks)
        if switch is None:
            raise UserError(f"system {system.name}: no switch that reduces joins these ranks")
        chip = system.ranks[self.ranks[target if source == SWITCH else source]]
        place = system.place(switch, chip) if source == SWITCH else system.place(chip, switch)
        return (Route((place,), 1.0, system.links[place].latency_s),)


def reducing_switch(system: System, ranks: tuple[int, ...]) -> str | None:
    """Return the first switch that reduces and has a link to each of the ranks, None without one."""
    for switch in system.switches:
        if switch.reduces and all(system.graph.has_edge(system.ranks[r], switch.name) for r in ranks):
            return switch.name
    return None
