"""From a checked file to a `System`: nodes and links by name, and what each chip brings to the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError, refuse_unknown
from ..gpu import gpu_names, load_gpu
from ..machine.chip import Chip, chip_names, load_chip
from .form import MOST_LINKS, LinkGroup, SystemFile
from .library import Library, Protocol
from .topology import Endpoint, Host, Link, Switch, System

if TYPE_CHECKING:
    from ..machine.network import Network

LEAST_BYTES_PER_S = 1e6  # a slower link is none of a computer
BITS = 8e-12  # joules a byte of a picojoule a bit
RANGE = re.compile(r"([a-z][a-z0-9_-]*)(?:\[(\d{1,5})-(\d{1,5})\])?")
SPEEDS = tuple[Endpoint, dict[str, float]]
LoadsChip = Callable[[str], Chip]


def build(file: SystemFile, copies: int, library: Library, chip: LoadsChip = load_chip) -> System:
    """Return a file's system, so many copies of it, of chips as `chip` gives them by name or file.

    Raises `UserError` where it does not hang together.
    """
    ends = {group.chip: endpoint(group.chip, chip) for group in file.chips}
    ranks: list[str] = []
    points: list[Endpoint] = []
    speeds: dict[str, dict[str, float]] = {}
    for copy in range(copies):
        for group in file.chips:
            for name in named(group.name, group.count, _prefix(copy, copies)):
                ranks.append(name)
                points.append(ends[group.chip][0])
                speeds[name] = ends[group.chip][1]
    switches = [
        Switch(name, group.reduces, group.pj_per_bit * BITS)
        for group in file.switches
        for copy in range(1 if group.shared else copies)
        for name in named(group.name, group.count, "" if group.shared else _prefix(copy, copies))
    ]
    links = tuple(_links(file, copies, speeds))
    h = file.host
    host = Host(
        h.servers * copies, h.memory_bytes, h.memory_bytes_per_s, h.nic_bytes_per_s, h.power_w
    )  # fmt: skip
    name = file.name if copies == 1 else f"{file.name}*{copies}"
    library = with_runtime(library, ends, file)
    found = System(name, file.text, tuple(ranks), tuple(points), tuple(switches), links, host, library)
    _check_joined(found)
    return found


def named(group: str, count: int, prefix: str = "") -> list[str]:
    """Return the names of the nodes of a group."""
    return [prefix + group] if count == 1 else [f"{prefix}{group}{i}" for i in range(count)]


def _prefix(copy: int, copies: int) -> str:
    return f"s{copy}." if copies > 1 else ""


def endpoint(name: str, loads_chip: LoadsChip = load_chip) -> SPEEDS:
    """Return what a chip or GPU brings to a network, and the rates of its ports by their name."""
    if name in gpu_names():
        gpu = load_gpu(name)
        return _end(
            gpu.network, (gpu.name, name), (gpu.dram_bytes, gpu.dram_bytes_per_s), gpu.host_bytes_per_s
        )
    if name not in chip_names() and not (name.endswith(".toml") or "/" in name):
        raise refuse_unknown("chip or gpu", name, [*chip_names(), *gpu_names()])
    chip = loads_chip(name)
    memory = (float(chip.dram.bytes), chip.dram.bytes_per_s)
    return _end(chip.network, (chip.name, name), memory, chip.system.host_bytes_per_s)


def _end(
    network: Network | None, names: tuple[str, str], memory: tuple[float, float], host_bytes_per_s: float
) -> SPEEDS:
    """Return an endpoint and rates; `names` are the chip's and its source, `memory` bytes and bytes/s."""
    if network is None:
        raise UserError(
            f"{names[0]} has no [network] table: its file does not say how it sends, so it is in no system "
            "(right: copy the table of a like one, such as mtia-2i, whose file's comments say how to fill it)"
        )
    n = network
    is_gpu = names[1] in gpu_names()
    found = Endpoint(
        *names, is_gpu, n.launch_s, n.post_s, n.reduce_bytes_per_s, n.reducer, n.buffers, *memory
    )  # fmt: skip
    ports = {
        "scale_up": n.scale_up_bytes_per_s,
        "scale_out": n.scale_out_bytes_per_s,
        "host": host_bytes_per_s,
    }
    return found, ports


def _links(file: SystemFile, copies: int, speeds: dict[str, dict[str, float]]) -> Iterator[Link]:
    """Yield both directions of every link; two nodes have one link at most."""
    counts = {g.name: (g.count, False) for g in file.chips}
    counts |= {g.name: (g.count, g.shared) for g in file.switches}
    seen: set[tuple[str, str]] = set()
    lane = 0
    for group in file.links:
        for copy in range(copies):
            for a, b in _pairs(group, counts, _prefix(copy, copies), file.name):
                if a == b or (a, b) in seen:
                    if copy and a != b and _both_shared(group, counts):
                        continue
                    raise UserError(f"system {file.name}: links.{group.name}: {_twice(a, b)}")
                seen |= {(a, b), (b, a)}
                if len(seen) > 2 * MOST_LINKS:
                    raise UserError(f"system {file.name}: more than {MOST_LINKS} links")
                half = group.duplex == "half"
                rate = _rate(group, a, b, speeds, file.name)
                price = group.pj_per_bit * BITS
                yield Link(group.name, a, b, rate, group.latency_s, price, lane)
                yield Link(group.name, b, a, rate, group.latency_s, price, lane if half else lane + 1)
                lane += 1 if half else 2


def _twice(a: str, b: str) -> str:
    return f"{a} is linked to itself" if a == b else f"{a} and {b} are linked twice; give one link its rate"


def _both_shared(group: LinkGroup, counts: dict[str, tuple[int, bool]]) -> bool:
    return all(counts[RANGE.fullmatch(end).group(1)][1] for end in (*_ends(group.from_), *_ends(group.to)))  # type: ignore[union-attr]


def _ends(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _pairs(
    group: LinkGroup, counts: dict[str, tuple[int, bool]], prefix: str, system: str
) -> Iterator[tuple[str, str]]:
    for a in _nodes(group, group.from_, counts, prefix, system):
        for b in _nodes(group, group.to, counts, prefix, system):
            yield a, b


def _nodes(
    group: LinkGroup,
    given: str | Sequence[str],
    counts: dict[str, tuple[int, bool]],
    prefix: str,
    system: str,
) -> list[str]:
    """Return the nodes that one end of a group of links names: groups, `name[0-3]` for some of one."""
    out: list[str] = []
    for end in _ends(given):
        match = RANGE.fullmatch(end)
        known = match.group(1) if match else end
        if match is None or known not in counts:
            raise refuse_unknown(f"node of links.{group.name} in system {system}", known, counts)
        count, shared = counts[known]
        nodes = named(known, count, "" if shared else prefix)
        if match.group(2) is not None:
            first, last = int(match.group(2)), int(match.group(3))
            if not first <= last < count:
                raise UserError(
                    f"system {system}: links.{group.name}: {end}; right: from 0 to {count - 1}, low to high"
                )
            nodes = nodes[first : last + 1]
        out += nodes
    return out


def _rate(group: LinkGroup, a: str, b: str, speeds: dict[str, dict[str, float]], system: str) -> float:
    """Return a link's rate: its own, or that of the chip's ports at its slower end."""
    given, where = group.bytes_per_s, f"system {system}: links.{group.name}"
    if isinstance(given, str):
        ports = [speeds[n][given] for n in (a, b) if n in speeds]
        if not ports:
            raise UserError(f"{where}: rate '{given}' between {a} and {b}: no chip")
        rate = min(ports)
    else:
        rate = float(given)
    if not rate >= LEAST_BYTES_PER_S:
        raise UserError(f"{where}: {rate:g} bytes/s; right: from {LEAST_BYTES_PER_S:g}")
    return rate


def with_runtime(library: Library, ends: dict[str, SPEEDS], file: SystemFile) -> Library:
    """Return the library with the all-reduce kernels that serving runtimes bring, where the GPU has some."""
    names = {group.chip for group in file.chips}
    if len(names) != 1 or not ends[next(iter(names))][0].is_gpu:
        return library
    links = load_gpu(next(iter(names))).links
    if links is None or links.direct is None:
        return library
    d = links.direct
    shot = Protocol(
        name="runtime", near=True, algorithms=("one_shot",), kinds=("all_reduce",),
        start_s=d.start_s, hop_s=0.0, peer_s=d.peer_s, share=d.efficiency,
    )  # fmt: skip
    two = shot.model_copy(
        update={"name": "runtime-2", "algorithms": ("direct",), "peer_s": d.peer_s / 2,
                "start_s": d.start_s + d.two_shot_s}
    )  # fmt: skip
    return library.model_copy(update={"protocols": (*library.protocols, shot, two)})


def _check_joined(system: System) -> None:
    """Refuse a topology in parts: each chip must reach each other one."""
    import networkx

    parts = list(networkx.strongly_connected_components(system.graph))
    if len(parts) < 2:
        return
    chips = set(system.ranks)
    inhabited = sorted((sorted(part & chips) for part in parts if part & chips), key=len, reverse=True)
    if len(inhabited) > 1:
        few = ", ".join(inhabited[1][:4]) + (", ..." if len(inhabited[1]) > 4 else "")
        hint = "; copies are joined by switches with shared = true" if "*" in system.name else ""
        raise UserError(
            f"system {system.name}: the topology is in {len(inhabited)} parts: no way from "
            f"{inhabited[0][0]} to {few}{hint}"
        )
