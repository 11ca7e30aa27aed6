"""What is counted: each kind of event declared once, with what it means and where its price stands."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import numpy as np

from ..machine.chip import known_keys
from ..types import DTYPES

Array = np.ndarray[Any, Any]
DTYPE_NAMES = tuple(DTYPES)
PRICES = frozenset(known_keys())


@dataclass(frozen=True)
class Counter:
    """A kind of event that costs energy.

    `price` is the dotted key of a chip's parameter that holds its price in pJ, `part` the part of `Joules`
    that pays it; each event is so many arithmetic `operations`. `by` names the fact that tells which of
    several prices holds for a command.
    """

    text: str
    price: str
    part: str
    operations: int = 0
    by: str = ""

    def __post_init__(self) -> None:
        if self.price not in PRICES:
            raise TypeError(f"counter {self.text!r} has no price: {self.price!r} is no key of a chip")


@dataclass(frozen=True)
class Detail:
    """What says how an event came about; it has no price of its own."""

    text: str


@dataclass
class Events:
    """One array a kind of event, an element a command: a `Counter` with its price, or a `Detail` of one."""

    local_read_bytes: Annotated[
        Array, Counter("bytes read from PE local memories", "energy.local_read_pj_per_byte", "local")
    ]
    local_write_bytes: Annotated[
        Array,
        Counter(
            "bytes written to PE local memories, every receiver of a multicast counted",
            "energy.local_write_pj_per_byte",
            "local",
        ),
    ]
    sram_read_bytes: Annotated[
        Array, Counter("bytes read from shared SRAM", "energy.sram_read_pj_per_byte", "sram")
    ]
    sram_write_bytes: Annotated[
        Array, Counter("bytes written to shared SRAM", "energy.sram_write_pj_per_byte", "sram")
    ]
    dram_read_bytes: Annotated[
        Array, Counter("bytes read from DRAM, whole bursts", "energy.dram_read_pj_per_byte", "dram")
    ]
    dram_write_bytes: Annotated[
        Array, Counter("bytes written to DRAM, whole bursts", "energy.dram_write_pj_per_byte", "dram")
    ]
    noc_bytes: Annotated[Array, Detail("payload bytes that enter the network on chip, a multicast once")]
    noc_byte_hops: Annotated[
        Array, Counter("payload bytes times the links that they cross", "energy.noc_pj_per_byte_hop", "noc")
    ]
    macs: Annotated[Array, Counter("multiply-adds", "energy.mac_pj", "compute", operations=2, by="mac_dtype")]
    mac_dtype: Annotated[Array, Detail("the dtype of the multiply-adds, an index into DTYPE_NAMES")]
    simd_passes: Annotated[
        Array,
        Counter("elements times passes through the SIMD lanes", "energy.simd_pj", "compute", operations=1),
    ]
    scalar_elements: Annotated[
        Array, Counter("elements handled by a core", "energy.scalar_pj", "compute", operations=1)
    ]
    commands: Annotated[Array, Counter("commands issued", "energy.command_pj", "control")]
    run_bytes: Annotated[Array, Detail("length of a transfer's contiguous runs: DRAM efficiency, addressing")]
    runs: Annotated[Array, Detail("number of those runs")]
    transposed_bytes: Annotated[Array, Detail("bytes that pass the layout unit")]
    rows: Annotated[Array, Detail("rows requested one by one (indexed transfers)")]
    missed: Annotated[Array, Detail("share of an indexed transfer's rows in DRAM that no cache serves")]

    @classmethod
    def zeros(cls, n: int) -> Events:
        """Return the events of n commands that do nothing."""
        return cls(**{f.name: np.ones(n) if f.name == "missed" else np.zeros(n) for f in fields(cls)})

    def of(self, which: Array | slice) -> Events:
        """Return the events of commands at[n], by number."""
        return Events(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def _counters() -> dict[str, Counter]:
    """Return the fields of `Events` that have a price; raise `TypeError` for a field that says nothing."""
    kinds = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in _HINTS.items()}
    for name, kind in kinds.items():
        if not isinstance(kind, Counter | Detail):
            raise TypeError(f"event {name} is neither a Counter, with a price, nor a Detail about one")
    return {name: kind for name, kind in kinds.items() if isinstance(kind, Counter)}


_HINTS = get_type_hints(Events, include_extras=True)
COUNTERS = _counters()
