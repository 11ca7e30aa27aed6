"""What a run over many chips came to beside its times and joules: who waited for whom, and who holds what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a chip's memory, by what lies there, and how much there is.

    `state` bytes are caches and other values that go on to the next run, `buffers` what collectives hold
    besides.
    """

    weights: int
    state: int
    activations: int
    buffers: int
    capacity: int

    @property
    def needed(self) -> int:
        """Return the bytes that are needed."""
        return self.weights + self.state + self.activations + self.buffers

    @property
    def short(self) -> int:
        """Return the bytes that are lacking, 0 where all fits."""
        return max(self.needed - self.capacity, 0)


@dataclass(frozen=True)
class StageUse:
    """Chips that run equal programs: how long one of them computes, and exchanges, for one micro-batch.

    `exposed_s` is the part of the exchanges in which the chip waits; the rest is hidden behind its work.
    """

    name: str
    chips: int
    seconds: float
    compute_s: float
    exchange_s: float
    exposed_s: float
    memory: MemoryUse


@dataclass(frozen=True)
class ExchangeUse:
    """Equal exchanges of a stage: `times` in a micro-batch, of so many bytes among so many chips each."""

    stage: str
    kind: str
    axes: str
    bytes: int
    chips: int
    times: int
    seconds: float
    algorithm: str


@dataclass(frozen=True)
class ShardUse:
    """What of the embedding tables a chip has: names, bytes, and the rows that it is asked for in a run.

    A name says how the table lies, as in "t0", "t1 in rows", "t2 in columns", "t3 copied".
    """

    chip: int
    tables: tuple[str, ...]
    bytes: int
    lookups: int


@dataclass(frozen=True)
class SystemUse:
    """A run on a system: how it is split, its stages and exchanges, and what stands beside the chips.

    `idle_s` is what an average chip waits for other stages. `link_joules` are of links and switches, and not
    among the joules of the chips; `host_w` is drawn by the hosts while it runs. `shards` are the embedding
    tables of each chip, where these are spread. Chips of one stage that run different programs are several
    of `stages`.
    """

    system: str
    parallel: str
    chips: int
    chip: str
    stages: tuple[StageUse, ...]
    exchanges: tuple[ExchangeUse, ...]
    batches: int
    idle_s: float
    link_joules: float
    host_w: float
    shards: tuple[ShardUse, ...] = ()

    @property
    def exposed_s(self) -> float:
        """Return the seconds in which the slowest stage waits for exchanges, in one micro-batch."""
        return max(x.exposed_s for x in self.stages)
