"""Blocks of kernel calls that were compiled before, known without their commands.

What compiling and timing ask of a block is kept on disk (`reuse/records`), by all that it depends on: the
kernel's call, the mapping that the options choose, the chip, the code. Commands are made when somebody reads
them, and let go when others are (`program/deferred`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import NoRoom, TooLarge, most_commands
from mtia_emu.kernels.pace import Pace
from mtia_emu.kernels.prefetch import LoadedTiles, TileArrays, TileSizes

from ..errors import UserError
from ..machine.chip import Chip
from ..program.deferred import Deferred, KnownBlock, Shelf, known
from ..program.isa import Block
from ..reuse.memo import Memoise, SameObject, is_noted
from ..reuse.plan_cache import rules_digest
from ..reuse.records import Records

Work = Callable[[Chip], Any]


@dataclass(frozen=True)
class _Made:
    """What came of making a block: what is known of it, or why there is none.

    It was refused for want of room, or for more commands than `most`, where that is not 0.
    """

    block: KnownBlock | None
    refused: str = ""
    most: int = 0


@dataclass
class KnownBlocks:
    """A `Memoise` for one compilation after another on plain chips, in front of one that it is given.

    `deciding` are the options on which mappings depend.
    """

    records: Records
    memoise: Memoise
    deciding: Hashable
    shelf: Shelf = field(default_factory=Shelf)

    def __call__(self, kind: str, key: Hashable, chip: Chip, work: Work, *, decides: bool = False) -> Any:
        """Return work(chip): from disk where it is of a block that is known."""
        through = _KINDS.get(kind)
        whose = None if through is None or is_noted(chip) else self._whose(kind, key)
        if through is None or whose is None:
            return self.memoise(kind, key, chip, work, decides=decides)
        source = f"{kind} {rules_digest()} {self.deciding!r} {whose} {chip!r}"
        return through(self, source, chip, work)

    def _whose(self, kind: str, key: Any) -> str | None:
        """Return all that a result depends on besides the chip; None where it is not known by that."""
        if kind == "block":
            return repr(key) if key[0] in KERNELS else None
        parts = []
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, SameObject):
                if not isinstance(part.held, Deferred):
                    return None
                parts.append(part.held.known.digest)
            else:
                parts.append(repr(part))
        return " ".join(parts)

    def _block(self, source: str, chip: Chip, work: Work) -> Block:
        """Return a block; one of more commands than may be is made, which says so."""
        found = self.records.find(source, _Made)
        made = found[0] if found else None
        if made is not None and made.refused and not made.most:
            raise NoRoom(made.refused)
        if made is not None and made.refused and most_commands() <= made.most:
            raise TooLarge(made.refused)
        if made is None or made.block is None or made.block.census.commands > most_commands():
            return self._new(source, chip, work)
        return self._deferred(made.block, source, chip, work)

    def _deferred(self, what: KnownBlock, source: str, chip: Chip, work: Work) -> Deferred:
        """Return a block that is made when it is read, and refused where it is then not what is known."""

        def make() -> Block:
            block: Block = work(chip)
            if known(block) != what:
                self.records.drop(source)
                raise UserError(
                    f"{what.kernel}: what the cache knew of its block is not so, and is forgotten now "
                    "(right: the same command once more)"
                )
            return block

        return Deferred.of(what, make, self.shelf)

    def _new(self, source: str, chip: Chip, work: Work) -> Block:
        try:
            block: Block = work(chip)
        except NoRoom as error:
            self.records.keep(source, _Made(None, str(error)))
            raise
        except TooLarge as error:
            self.records.keep(source, _Made(None, str(error), most_commands()))
            raise
        if block.scalar[0] or isinstance(block, Deferred):
            return block
        what = known(block)
        self.records.keep(source, _Made(what))
        self.shelf.put(what.digest, block)
        return self._deferred(what, source, chip, work)

    def _pace(self, source: str, chip: Chip, work: Work) -> Pace | None:
        found: Pace | None = self.records.kept(source, Pace | None, lambda: work(chip))
        return found

    def _faster(self, source: str, chip: Chip, work: Work) -> tuple[str, int] | None:
        """Return whether attention is one kernel, and in how many parts of its keys."""
        found: tuple[str, int] | None = self.records.kept(source, tuple[str, int] | None, lambda: work(chip))
        return found

    def _tiles(self, source: str, chip: Chip, work: Work) -> LoadedTiles | None:
        """Return the tiles that a block loads, found one by one only when they are read."""
        found = self.records.find(source, TileSizes | None)
        if found is None:
            tiles: LoadedTiles | None = work(chip)
            self.records.keep(source, None if tiles is None else tiles.sizes)
            return tiles

        def arrays() -> TileArrays:
            tiles: LoadedTiles = work(chip)
            return tiles.arrays

        return None if found[0] is None else LoadedTiles(found[0], arrays)


_KINDS: dict[str, Callable[[KnownBlocks, str, Chip, Work], Any]] = {
    "block": KnownBlocks._block,
    "joined": KnownBlocks._block,
    "head": KnownBlocks._block,
    "prefetch": KnownBlocks._block,
    "pace": KnownBlocks._pace,
    "fused": KnownBlocks._faster,
    "tiles": KnownBlocks._tiles,
}
