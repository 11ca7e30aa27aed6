"""What a system is: chips, switches and links, checked by the loader; and the routes between chips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import UserError
from .library import Library

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class Link:
    """One direction of a link; both directions of a half-duplex link have one `lane`, and share its rate."""

    name: str
    source: str
    target: str
    bytes_per_s: float
    latency_s: float
    j_per_byte: float
    lane: int


@dataclass(frozen=True)
class Switch:
    """What forwards; one that `reduces` also adds up what its ports send, and sends one thing to many."""

    name: str
    reduces: bool
    j_per_byte: float


@dataclass(frozen=True)
class Host:
    """What stands around the chips: so many servers, each with a memory, NICs and a power of its own."""

    servers: int
    memory_bytes: float
    memory_bytes_per_s: float
    nic_bytes_per_s: float
    power_w: float


@dataclass(frozen=True)
class Endpoint:
    """A chip or GPU as the network sees it; times in seconds, rates in bytes a second.

    `chip` is its name, `source` the name or the file by which it is loaded.
    """

    chip: str
    source: str
    is_gpu: bool
    launch_s: float
    post_s: float
    reduce_bytes_per_s: float
    reducer: str
    buffers: str
    dram_bytes: float
    dram_bytes_per_s: float


@dataclass(frozen=True)
class Route:
    """One way from a chip to another: places of its links in `System.links`, and the share sent over it."""

    links: tuple[int, ...]
    share: float
    latency_s: float


@dataclass(frozen=True)
class System:
    """Chips (ranks in order), switches and links, with the library that runs collectives on them.

    `ranks` are the names of the chips' nodes, `endpoints` what stands there.
    """

    name: str
    text: str
    ranks: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    switches: tuple[Switch, ...]
    links: tuple[Link, ...]
    host: Host
    library: Library

    def __hash__(self) -> int:
        """Return a cheap hash; equality compares every field."""
        return hash((self.name, len(self.ranks), len(self.links)))

    @property
    def chips(self) -> tuple[str, ...]:
        """Return the name of the chip or GPU of each rank."""
        return tuple(end.chip for end in self.endpoints)

    @property
    def host_w(self) -> float:
        """Return the power of all servers beside their chips, in watts."""
        return self.host.servers * self.host.power_w

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """Return the topology: nodes by name, an edge for each direction of a link with its place `link`."""
        import networkx

        graph = networkx.DiGraph(name=self.name)
        graph.add_nodes_from(self.ranks, kind="chip")
        graph.add_nodes_from((s.name for s in self.switches), kind="switch")
        for place, link in enumerate(self.links):
            graph.add_edge(link.source, link.target, link=place, latency_s=link.latency_s)
        return graph

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the ranks by the switch that each reaches fastest; one group where there is none."""
        near: dict[str, list[int]] = {}
        for rank, name in enumerate(self.ranks):
            switches = self._switches_of(name)
            speeds = {s: self.links[self.place(name, s)].bytes_per_s for s in switches}
            near.setdefault(max(switches, key=lambda s: (speeds[s], s)) if switches else "", []).append(rank)
        return tuple(tuple(ranks) for ranks in near.values())

    def routes(self, source: int, target: int) -> tuple[Route, ...]:
        """Return the ways from a rank to another, which share no link; what is sent is split over them.

        The fastest way is the first; others count only where the library stripes, through other switches.
        Each carries a share in proportion to its slowest link. Raises `UserError` where there is none.
        """
        found = self._routes.get((source, target))
        if found is None:
            found = self._routes[source, target] = self._find(source, target)
        return found

    @cached_property
    def _routes(self) -> dict[tuple[int, int], tuple[Route, ...]]:
        return {}

    def place(self, source: str, target: str) -> int:
        """Return the place of the link from a node to another; `KeyError` where there is none."""
        return int(self.graph.edges[source, target]["link"])

    def _find(self, source: int, target: int) -> tuple[Route, ...]:
        a, b = self.ranks[source], self.ranks[target]
        paths = list(self._paths(a, b))
        if not paths:
            raise UserError(f"system {self.name}: no way from {a} to {b}")
        slowest = [min(self.links[i].bytes_per_s for i in path) for path in paths]
        return tuple(
            Route(path, rate / sum(slowest), sum(self.links[i].latency_s for i in path))
            for path, rate in zip(paths, slowest, strict=True)
        )

    def _paths(self, a: str, b: str) -> list[tuple[int, ...]]:
        """Return ways that share no link, fastest first: one, or all that there are where it stripes."""
        ways = [
            (self.place(a, out), *inner, self.place(into, b))
            for out in self._switches_of(a)
            for into in self._switches_of(b)
            if (inner := self._between(out, into)) is not None and self.graph.has_edge(into, b)
        ]
        if self.graph.has_edge(a, b):
            ways.append((self.place(a, b),))
        if not ways:
            return [path] if (path := self._through(a, b)) else []
        ways.sort(key=lambda way: (sum(self.links[i].latency_s for i in way), len(way), way))
        kept, used = [], set[int]()
        for way in ways:
            if not used & set(way):
                kept.append(way)
                used |= set(way)
        return kept if self.library.stripes else kept[:1]

    def _switches_of(self, node: str) -> list[str]:
        chips = self._chip_names
        return [n for n in self.graph.successors(node) if n not in chips]

    @cached_property
    def _chip_names(self) -> frozenset[str]:
        return frozenset(self.ranks)

    @cached_property
    def _inner(self) -> dict[tuple[str, str], tuple[int, ...] | None]:
        return {}

    def _between(self, out: str, into: str) -> tuple[int, ...] | None:
        """Return the links of the fastest way between switches, over switches alone; None without one."""
        import networkx

        if (out, into) not in self._inner:
            fabric = self.graph.subgraph([s.name for s in self.switches])
            try:
                nodes = networkx.dijkstra_path(fabric, out, into, weight="latency_s")
                self._inner[out, into] = tuple(self.place(x, y) for x, y in zip(nodes, nodes[1:]))  # noqa: B905, RUF007
            except networkx.NetworkXNoPath:
                self._inner[out, into] = None
        return self._inner[out, into]

    def _through(self, a: str, b: str) -> tuple[int, ...]:
        """Return the links of the fastest way through other chips, empty without one."""
        import networkx

        try:
            nodes = networkx.dijkstra_path(self.graph, a, b, weight="latency_s")
        except networkx.NetworkXNoPath:
            return ()
        return tuple(self.place(x, y) for x, y in zip(nodes, nodes[1:]))  # noqa: B905, RUF007
