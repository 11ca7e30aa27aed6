"""A pool of blocks of a key-value cache: counted, and reused by the content of what was freed.

Which block of the memory a sequence gets changes no time, so blocks are counted and not numbered. What was
freed is kept in *pieces*, in the order in which it was freed: a piece without a name, one that belonged to
a sequence (its beginning can be found again by that sequence), or one that is shared by its hash.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class OwnBlocks(NamedTuple):
    """The name of the blocks that only one sequence can find again: the beginning of its own context."""

    sequence: int
    kind: str = "own"


class SharedBlocks(NamedTuple):
    """The name of blocks that any sequence with the same tokens up to there can find, by their hash."""

    hash: int
    kind: str = "shared"


class _Plain(NamedTuple):
    """A name for blocks whose content nobody can find."""

    serial: int
    kind: str = "plain"


Name = OwnBlocks | SharedBlocks | _Plain


class BlockPool:
    """Blocks in use, blocks free, and what the free ones still hold."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._serial = 0
        self._users: dict[SharedBlocks, int] = {}  # of shared pieces in use: by how many sequences
        self._pieces: OrderedDict[Name, int] = OrderedDict({_Plain(0): size})  # free ones, the oldest first
        self._last_plain: _Plain | None = _Plain(0)

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self.size - self.free

    def take(self, blocks: int) -> None:
        """Take free blocks, the longest free first: what they held is lost."""
        if blocks > self.free:
            raise ValueError(f"{blocks} blocks taken of {self.free} free")
        self.free -= blocks
        pieces = self._pieces
        while blocks:
            name = next(iter(pieces))
            held = pieces[name]
            if held > blocks:
                self._cut(name, held - blocks)
                return
            del pieces[name]
            if name == self._last_plain:
                self._last_plain = None
            blocks -= held

    def give(self, blocks: int, name: OwnBlocks | None = None) -> None:
        """Free blocks; with a name, `found` finds them by it until they are taken."""
        if not blocks:
            return
        self.free += blocks
        if name is not None:
            self._pieces[name] = blocks
            self._last_plain = None
        elif self._last_plain is not None:
            self._pieces[self._last_plain] += blocks
        else:
            self._serial += 1
            self._last_plain = _Plain(self._serial)
            self._pieces[self._last_plain] = blocks

    def found(self, name: OwnBlocks | SharedBlocks) -> int:
        """Return how many free blocks are left of a piece."""
        return self._pieces.get(name, 0)

    def in_use(self, name: SharedBlocks) -> bool:
        """Return whether a shared piece is held by a sequence that runs."""
        return name in self._users

    def reclaim(self, name: OwnBlocks, most: int) -> int:
        """Take back the beginning of a sequence's own blocks, at most so many; the rest loses its name."""
        held = self._pieces.pop(name, 0)
        kept = min(held, most)
        self.free -= held
        self.give(held - kept)
        return kept

    def share(self, name: SharedBlocks) -> None:
        """Hold a shared piece: one in use, one that is free and still whole, or blocks just taken for it."""
        held = self._pieces.pop(name, 0)
        self.free -= held
        self._users[name] = self._users.get(name, 0) + 1

    def unshare(self, name: SharedBlocks, blocks: int) -> None:
        """Let go of a shared piece of so many blocks; the last who does frees it."""
        users = self._users[name] - 1
        if users:
            self._users[name] = users
            return
        del self._users[name]
        self.free += blocks
        self._pieces[name] = blocks
        self._last_plain = None

    def _cut(self, name: Name, left: int) -> None:
        """Leave so many blocks of the oldest piece. A shared piece is lost with its first block."""
        if not isinstance(name, SharedBlocks):
            self._pieces[name] = left
            return
        del self._pieces[name]
        self._serial += 1
        rest = _Plain(self._serial)
        self._pieces[rest] = left
        self._pieces.move_to_end(rest, last=False)
