"""Ranks of a stage that run equal programs, and which tables each chip has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtia_emu.compiler.graph import Node

from ..results.system_use import ShardUse
from .partition import Partition


@dataclass(frozen=True)
class RankClass:
    """Ranks whose programs are equal but for the names of tables: the first of them, and their chips."""

    rank: int
    chips: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the chips' numbers in words."""
        return f"chip{'s' * (len(self.chips) > 1)} {', '.join(map(str, self.chips))}"


def rank_classes(parts: Partition, stage: int) -> tuple[RankClass, ...]:
    """Return the classes of a stage's ranks, in the order of their first ranks.

    Ranks differ in the tables that they have: those with as many look-ups in tables of the same sizes, in the
    same order, are alike.
    """
    mesh, known = parts.mesh, dict[object, list[int]]()
    for rank in range(len(mesh.ranks)):
        key = tuple(_looked_up(parts, node) for node in _held(parts, stage, rank))
        known.setdefault(key, []).append(rank)
    return tuple(
        RankClass(ranks[0], tuple(sorted({mesh.chip(stage, r) for r in ranks}))) for ranks in known.values()
    )


def _held(parts: Partition, stage: int, rank: int) -> Iterator[Node]:
    """Yield the look-ups that a rank does in tables that not all have."""
    place, holders = parts.mesh.ranks[rank], parts.split.holders
    for node in parts.stages[stage].nodes:
        holder = holders.get(node.name) if node.op == "gather" else None
        if holder is not None and parts.mesh.index(place, holder.axes) == holder.owner:
            yield node


def _looked_up(parts: Partition, node: Node) -> object:
    return tuple(parts.split.types[v] for v in node.inputs)


def shards(parts: Partition) -> tuple[ShardUse, ...]:
    """Return the tables of each chip where they are spread by a plan, nothing elsewhere."""
    if not parts.split.places:
        return ()
    found: dict[int, ShardUse] = {}
    for stage in range(len(parts.stages)):
        for rank in range(len(parts.mesh.ranks)):
            chip = parts.mesh.chip(stage, rank)
            found.setdefault(chip, _shard(parts, stage, rank, chip))
    return tuple(found[chip] for chip in sorted(found) if found[chip].tables)


def _shard(parts: Partition, stage: int, rank: int, chip: int) -> ShardUse:
    split, places = parts.split, parts.split.places
    mine = {node.name for node in _held(parts, stage, rank)}
    names: dict[str, int] = {}
    lookups = 0
    for node in parts.stages[stage].nodes:
        table = split.shards[node.inputs[0]].source if node.inputs[0] in split.shards else ""
        if (
            node.op != "gather"
            or table not in places
            or (node.name in split.holders and node.name not in mine)
        ):
            continue
        kind = places[table].kind
        how = {"row": " in rows", "column": " in columns", "copied": " copied"}.get(kind, "")
        names[f"{table}{how}"] = split.types[node.inputs[0]].bytes
        lookups += split.types[node.inputs[1]].size
    return ShardUse(chip, tuple(names), sum(names.values()), lookups)
