"""Blocks whose commands are made when somebody reads them.

A report reads what is known of a block, and its cost; commands, 56 bytes each, only who executes, draws or
prints them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from .census import Census, census
from .isa import Block, Operand, Slot
from .routed import Routed

Array = np.ndarray[Any, Any]
HELD_BYTES = 64 << 20  # of commands that are made and maybe soon read again


@dataclass(frozen=True)
class KnownBlock:
    """A block but its commands: what it holds beside them, their census, and a digest of what they are.

    It follows a table of turns where it is `routed`.
    """

    kernel: str
    operands: tuple[Operand, ...]
    slots: tuple[Slot, ...]
    scratch_bytes: int
    stages: int
    mapping: str
    bands: tuple[int, ...]
    routed: bool
    census: Census
    content: str

    @cached_property
    def digest(self) -> str:
        """Return what tells the block from all others."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


def known(block: Block) -> KnownBlock:
    """Return what is known of a block once it is made; its core runs no op by itself."""
    assert not block.scalar[0], block.kernel
    return KnownBlock(
        block.kernel,
        block.operands,
        block.slots,
        block.scratch_bytes,
        block.stages,
        block.mapping,
        block.bands,
        block.routed is not None,
        census(block),
        content(block),
    )


def content(block: Block) -> str:
    """Return a digest of a block's commands, and of how they follow a table of turns."""
    digest = hashlib.blake2b(digest_size=16)
    arrays: tuple[Array, ...] = (block.commands,)
    if (r := block.routed) is not None:
        digest.update(repr((r.operand, r.experts, r.strides)).encode())
        arrays += (r.commands, r.marks.turn, r.marks.first, r.marks.whole, r.table)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Shelf:
    """Blocks with their commands, those that were read last, up to so many bytes and at least one."""

    def __init__(self, most_bytes: int = HELD_BYTES) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[str, Block] = OrderedDict()
        self._bytes = 0

    def put(self, digest: str, block: Block) -> None:
        """Hold a block, which was read now."""
        if self.get(digest) is not None:
            return
        self._held[digest] = block
        self._bytes += _bytes(block)
        while self._bytes > self.most_bytes and len(self._held) > 1:
            self._bytes -= _bytes(self._held.popitem(last=False)[1])

    def get(self, digest: str) -> Block | None:
        """Return a block that is held; it is then the one that was read last."""
        if digest in self._held:
            self._held.move_to_end(digest)
        return self._held.get(digest)


def _bytes(block: Block) -> int:
    r = block.routed
    routed = 0 if r is None else r.commands.nbytes + 2 * r.marks.turn.nbytes + r.marks.whole.nbytes
    return int(block.commands.nbytes + routed)


class Deferred(Block):
    """A block whose commands are made when they are read, and let go when others are.

    A copy with changes is a plain block.
    """

    def __new__(cls, *values: Any, **named: Any) -> Block:  # type: ignore[misc]
        """Return a plain block: `replace` makes copies by the class."""
        return Block(*values, **named)

    @classmethod
    def of(cls, what: KnownBlock, make: Callable[[], Block], shelf: Shelf) -> Deferred:
        """Return the block of which so much is known; `make` makes the very same, with its commands."""
        self = object.__new__(cls)
        given = {f.name: getattr(what, f.name) for f in fields(what) if f.name not in ("routed", "content")}
        vars(self).update(given | {"known": what, "scalar": ("", ()), "_make": make, "_shelf": shelf})
        return self

    known: KnownBlock

    @property
    def size(self) -> int:
        """Return how many commands there are; they are not made for that."""
        return self.known.census.commands

    @property
    def is_routed(self) -> bool:
        """Return whether the commands follow a table of turns; they are not made for that."""
        return self.known.routed

    @property
    def whole(self) -> Block:
        """Return the plain block."""
        shelf: Shelf = vars(self)["_shelf"]
        block = shelf.get(self.known.digest)
        if block is None:
            block = vars(self)["_make"]()
            shelf.put(self.known.digest, block)
        return block

    @property
    def commands(self) -> Array:
        """Return the commands, made if need be."""
        return self.whole.commands

    @property
    def routed(self) -> Routed | None:
        """Return how the commands follow a table of turns, where they do."""
        return self.whole.routed if self.known.routed else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy is made elsewhere: as a plain block."""
        return Block, tuple(getattr(self, f.name) for f in fields(Block))
