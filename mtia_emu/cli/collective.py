"""The commands `mtia-emu systems` and `mtia-emu collective`: many chips without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from ..errors import UserError
from . import options as o
from .output import console, say

if TYPE_CHECKING:
    from ..system.collectives import CollectiveTime
    from ..system.topology import System

UNITS = {"": 1, "B": 1, **{f"{p}{i}B": b**e for i, b in (("", 1000), ("i", 1024))
         for e, p in enumerate(("K" if i else "k", "M", "G", "T"), 1)}, "KB": 1000}  # fmt: skip
MOST_SIZES = 256
EACH = "each"
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
SYSTEM_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change what the system's file says, as in --set links.nvlink.bytes_per_s=9e11; may be repeated.",
)
MANY = click.option("--many", is_flag=True, help="Allow more than 1,024 chips.")


@click.command(short_help="Print the systems that ship, or one of them.")
@click.argument("name", required=False)
@o.options(SYSTEM_SET, MANY, o.JSON)
def systems(name: str | None, settings: tuple[str, ...], many: bool, json_file: str | None) -> None:
    """Print the systems of many chips that ship, or NAME: a system, a .toml file, or NAME*N for N of them.

    A system is chips or GPUs, switches and links, hosts, and the library that runs collectives. Each number
    is printed with its source.

    \b
    Examples:
      mtia-emu systems
      mtia-emu systems mtia-2i-server
      mtia-emu systems "mtia-300-rack*3" --json -
    """
    from ..system.load import load_system, system_names

    if name is None:
        found = [load_system(each) for each in system_names()]
        if not written([_summary(s) for s in found], json_file):
            _print_all(found)
        return
    system = load_system(name, parse_settings(settings), consent=many)
    from ..system.listing import as_json

    if not written(as_json(system), json_file):
        _print_one(system, name)


@click.command(short_help="Print what a collective takes, by size.")
@click.argument("kind", metavar="KIND")
@click.option("--system", "name", metavar="NAME|FILE.toml", required=True, help="The system, or NAME*N.")
@click.option(
    "--bytes", "sizes", metavar="SIZE|A:B|A:B:FACTOR", default="1KiB:1GiB:4", show_default=True,
    help="Message sizes as nccl-tests counts them: one, several with commas, or from A to B.",
)  # fmt: skip
@click.option("--ranks", metavar="N|LIST", help="The first N chips, or these, as 0-3,8.  [default: all]")
@click.option(
    "--algorithm", metavar="NAME", default="auto", show_default=True,
    help="auto takes the fastest; ring, tree, halving_doubling, direct, one_shot, hierarchical, in_switch; "
    "or each, to see them side by side.",
)  # fmt: skip
@o.options(SYSTEM_SET, MANY, o.JSON)
def collective(
    kind: str, name: str, sizes: str, ranks: str | None, algorithm: str, settings: tuple[str, ...],
    many: bool, json_file: str | None,
) -> None:  # fmt: skip
    """Print time, algorithm and bandwidth of a collective by message size, as nccl-tests does.

    KIND: all_reduce, all_gather, reduce_scatter, all_to_all, broadcast or send. Bus bandwidth is what links
    would show if each carried what a ring's does, so that it may be held to the links' rate; a switch that
    adds up may pass it. The fixed time is what an empty message would take.

    \b
    Examples:
      mtia-emu collective all_reduce --system hgx-h200 --bytes 1KiB:1GiB
      mtia-emu collective all_to_all --system mtia-2i-server --ranks 12 --bytes 1MiB
      mtia-emu collective all_reduce --system hgx-h200 --bytes 64KiB --algorithm each
    """
    from ..system.load import load_system

    system = load_system(name, parse_settings(settings), consent=many)
    chosen = parse_ranks(ranks, kind, len(system.ranks))
    rows = _rows(system, (kind, chosen), parse_sizes(sizes), algorithm)
    value = {
        "schema": "mtia-emu.collective.v1",
        "system": system.name, "kind": kind, "ranks": list(chosen),
        "rows": [_as_json(size, found) for size, found in rows],
    }  # fmt: skip
    if not written(value, json_file):
        _print_times(system, kind, chosen, rows)


def _rows(
    system: System, what: tuple[str, tuple[int, ...]], sizes: Sequence[float], algorithm: str
) -> list[tuple[float, CollectiveTime]]:
    from ..system.collectives import Collective, algorithms, timed

    rows = []
    for size in sizes:
        one = Collective(what[0], size, what[1])
        names = algorithms(system, one) if algorithm == EACH else [algorithm]
        rows += [(size, timed(system, one, name)) for name in names]
    return rows


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Return what is set in a system's file, by dotted key."""
    out = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set {text[:80]!r}: not KEY=VALUE (right: --set links.nvlink.bytes_per_s=9e11)"
            )
        if key.strip() in out:
            raise UserError(f"--set {key.strip()[:80]}: given twice")
        out[key.strip()] = value
    return out


def parse_size(text: str, flag: str = "--bytes") -> float:
    """Return bytes of a text as "64KiB", "1.5MB" or "1e6"."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    try:
        value = float(match.group(1)) * UNITS[match.group(2)] if match else -1.0
    except (KeyError, ValueError):
        value = -1.0
    if not 0 <= value <= 1e18:
        raise UserError(f"{flag} {text[:40]!r}: no size (right: 65536, 64KiB, 1.5MB; at most 1e18)")
    return value


def parse_sizes(text: str) -> list[float]:
    """Return the sizes of a text: several with commas, a range "A:B" by factors of two or "A:B:FACTOR"."""
    sizes: list[float] = []
    for part in text.split(","):
        first, *rest = part.split(":")
        if len(rest) > 2:
            raise UserError(f"--bytes {part[:40]!r}: right: SIZE, A:B or A:B:FACTOR")
        low, high = parse_size(first), parse_size(rest[0] if rest else first)
        factor = _factor(rest[1]) if len(rest) > 1 else 2.0
        if low > high or (low == 0 and rest):
            raise UserError(f"--bytes {part[:40]!r}: from more to less, or from nothing; right: 1KiB:1GiB")
        while low <= high * (1 + 1e-12):
            sizes.append(low)
            if not rest or len(sizes) > MOST_SIZES:
                break
            low *= factor
    if len(sizes) > MOST_SIZES:
        raise UserError(f"--bytes {text[:40]!r}: more than {MOST_SIZES} sizes")
    return sizes


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1.001 <= factor <= 1e18:
        raise UserError(f"--bytes: factor {text[:20]!r}; right: a number above 1, as in 1KiB:1GiB:4")
    return factor


def parse_ranks(text: str | None, kind: str, have: int) -> tuple[int, ...]:
    """Return ranks: the first N of `have`, those of "0-3,8", or all; a send takes the first and last."""
    if text is None:
        return (0, have - 1) if kind == "send" else tuple(range(have))
    if re.fullmatch(r"\d{1,6}", text.strip()):
        count = int(text)
        if not 1 <= count <= have:
            raise UserError(f"--ranks {count}: the system has {have} (right: from 1 to {have})")
        return tuple(range(count))
    ranks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if match is None:
            raise UserError(f"--ranks {part[:40]!r}: no ranks (right: 8, or a list as 0-3,8)")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if not first <= last < have:
            raise UserError(f"--ranks {part[:40]!r}: the system has ranks 0 to {have - 1}")
        ranks += range(first, last + 1)
    return tuple(ranks)


def written(value: object, json_file: str | None) -> bool:
    """Write JSON where it is asked for; return whether it takes the place of what is printed."""
    from ..files.writing import json_text, write_json

    if json_file == "-":
        say(json_text(value), nl=False)
        return True
    if json_file is not None:
        write_json(json_file, value)
    return False


def _as_json(size: float, found: CollectiveTime) -> dict[str, object]:
    return {
        "bytes": size, "seconds": found.seconds, "fixed_s": found.fixed_s, "algorithm": found.algorithm,
        "protocol": found.protocol, "rounds": found.rounds, "bytes_per_s": found.bytes_per_s,
        "bus_bytes_per_s": found.bus_bytes_per_s, "joules": found.joules,
        "dram_bytes": list(found.dram_bytes), "reduce_s": list(found.reduce_s),
    }  # fmt: skip


def _print_times(
    system: System, kind: str, ranks: tuple[int, ...], rows: Sequence[tuple[float, CollectiveTime]]
) -> None:
    from ..view import units
    from ..view.terminal import print_table

    table = [
        [f"{size:,.0f}", f"{1e6 * t.seconds:,.2f}", f"{1e6 * t.fixed_s:,.2f}", f"{t.bytes_per_s / 1e9:,.2f}",
         f"{t.bus_bytes_per_s / 1e9:,.2f}", f"{t.algorithm} {t.protocol}", units.joules(t.joules)]
        for size, t in rows
    ]  # fmt: skip
    columns = ["bytes", "us", "fixed", "algbw", "busbw", "by", "links"]
    title = f"{kind} of {len(ranks)} ranks on {system.name}: microseconds, GB/s"
    print_table(title, columns, table, console())


def _summary(system: System) -> dict[str, object]:
    from ..system.bounds import bisection_bytes_per_s

    kinds = list(dict.fromkeys(system.chips))
    return {
        "name": system.name, "chips": {kind: system.chips.count(kind) for kind in kinds},
        "dram_bytes": sum(e.dram_bytes for e in system.endpoints), "host_w": system.host_w,
        "bisection_bytes_per_s": bisection_bytes_per_s(system), "library": system.library.name,
        "text": system.text,
    }  # fmt: skip


def _print_all(found: Sequence[System]) -> None:
    from ..system.bounds import bisection_bytes_per_s
    from ..view import units
    from ..view.terminal import print_table

    rows = [
        [s.name, _chips(s), units.size(sum(e.dram_bytes for e in s.endpoints)),
         f"{units.size(bisection_bytes_per_s(s))}/s", units.watts(s.host_w)]
        for s in found
    ]  # fmt: skip
    print_table("systems", ["system", "chips", "DRAM", "half to half", "hosts"], rows, console())


def _chips(system: System) -> str:
    kinds = list(dict.fromkeys(system.chips))
    return ", ".join(f"{system.chips.count(kind)} {kind}" for kind in kinds)


def _print_one(system: System, name: str) -> None:
    from ..system.bounds import bisection_bytes_per_s
    from ..system.listing import facts
    from ..view import units
    from ..view.terminal import print_table

    say(system.text)
    totals = [
        ["chips", _chips(system)],
        ["groups, each behind a switch", ", ".join(_runs([len(g) for g in system.groups]))],
        ["DRAM of all chips", units.size(sum(e.dram_bytes for e in system.endpoints))],
        ["from half of the chips to the other", f"{units.size(bisection_bytes_per_s(system))}/s, each way"],
        ["hosts", f"{system.host.servers}, {units.watts(system.host_w)} beside the chips"],
    ]
    print_table(system.name, ["", ""], totals, console())
    rows = [
        [
            group,
            str(len(list(links))),
            f"{units.size(rate)}/s",
            units.seconds(latency),
            f"{price * 1e12 / 8:g}",
        ]
        for (group, rate, latency, price), links in groupby(
            system.links, key=lambda x: (x.name, x.bytes_per_s, x.latency_s, x.j_per_byte)
        )
    ]
    print_table("links, each way", ["group", "links", "rate", "latency", "pJ/bit"], rows, console())
    sources = [[f.key, str(f.value), f.source] for f in facts(name)]
    print_table("what its file says", ["key", "value", "source"], sources, console())
    parts = [[p.name, ", ".join(p.algorithms), units.seconds(p.start_s), units.seconds(p.hop_s),
              f"{p.share:.1%}"] for p in system.library.protocols]  # fmt: skip
    title = f"library {system.library.name}: {system.library.text}"
    print_table(title, ["protocol", "algorithms", "start", "a round", "share of links"], parts, console())


def _runs(sizes: Sequence[int]) -> list[str]:
    return [f"{len(list(same))} of {size}" for size, same in groupby(sizes)]
