"""DRAM from its timings: a channel simulated bank by bank, and the share of peak that runs of a length reach.

`DramTiming.simulate` is the slow truth: a controller over banks (`dram_controller.py`). `efficiency` is the
fast form that a timing model can afford for each command: the same controller, run once for each parameter
set on seeded streams of some run lengths, and a straight line in the logarithm of the length between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from .dram_controller import (
    ACTIVATE,
    BANK,
    CHANNEL,
    FOREVER,
    GROUP,
    PRECHARGE,
    READ,
    WRITE,
    Served,
    TimingRules,
    serve,
)
from .kept import kept
from .memory import STRICT, unit

Array = np.ndarray[Any, Any]

SEED = 0  # of the streams behind the fast form
PERIODS = 2  # refresh intervals that the fast form measures; one more goes before them
LEAST_PERIOD_BURSTS = 1024  # of what is measured, in time: several short refresh intervals make one
MOST_BURSTS = 1 << 16  # that one point of the fast form simulates
STREAM_ROWS = 2  # a run over this many rows of every bank group is a stream
# pJ to open and close a row, for each of its bytes: HBM2's IDD0, IDD3N and IDD2N of 65, 55 and 40 mA over
# tRC, tRAS and the rest of 48, 34 and 14 ns at 1.2 V are 828 pJ for a row of 1 KB (DRAMsim3 HBM2_8Gb_x128).
# That other memories take as much by the byte is an estimate.
ACTIVATE_PJ_PER_BYTE = 828 / 1024
WRITE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # at which the fast form is simulated; linear between them


def _cycles(text: str, most: int = 4096) -> Any:
    return Field(ge=0, le=most, description=text, json_schema_extra=unit("cycles"))


def _count(text: str, most: int, of: str) -> Any:
    return Field(gt=0, le=most, description=text, json_schema_extra=unit(of))


def _time(text: str) -> Any:
    return Field(ge=0, le=1e-4, description=text, json_schema_extra=unit("s"))


class DramTiming(BaseModel):
    """One DRAM channel as its data sheet gives it; cycles are those of the command clock."""

    model_config = STRICT

    transfers_per_s: float = Field(
        gt=0, le=1e12, description="data rate of a pin", json_schema_extra=unit("transfers/s")
    )
    channel_bits: int = _count("data pins of the channel", 4096, "bits")
    tck_s: float = Field(
        gt=0, le=1e-6, description="tCK: period of the command clock", json_schema_extra=unit("s")
    )
    bank_groups: int = _count("bank groups", 64, "groups")
    banks_per_group: int = _count("banks of a group, of all ranks and stack levels", 64, "banks")
    rows: int = _count("rows of a bank", 1 << 24, "rows")
    row_bytes: int = _count("bytes of a row in this channel", 1 << 20, "B")
    burst_length: int = _count("transfers of a burst", 256, "transfers")
    cl_cycles: int = _cycles("nCL: read command to first data")
    cwl_cycles: int = _cycles("nCWL: write command to first data")
    rcd_cycles: int = _cycles("nRCD: activate to read of the same bank")
    rcd_write_cycles: int = _cycles("nRCDWR: activate to write of the same bank")
    rp_cycles: int = _cycles("nRP: precharge to activate of the same bank")
    ras_cycles: int = _cycles("nRAS: activate to precharge of the same bank")
    rc_cycles: int = _cycles("nRC: activate to activate of the same bank")
    ccd_s_cycles: int = _cycles("nCCD_S: read to read, or write to write, of other bank groups")
    ccd_l_cycles: int = _cycles("nCCD_L: the same within a bank group")
    rrd_s_cycles: int = _cycles("nRRD_S: activate to activate of other bank groups")
    rrd_l_cycles: int = _cycles("nRRD_L: activate to activate of other banks of a group")
    faw_cycles: int = _cycles("nFAW: window in which at most four activates fall")
    rtp_cycles: int = _cycles("nRTP: read to precharge of the same bank")
    wr_cycles: int = _cycles("nWR: end of written data to precharge of the same bank")
    wtr_s_cycles: int = _cycles("nWTR_S: end of written data to read of other bank groups")
    wtr_l_cycles: int = _cycles("nWTR_L: the same within a bank group")
    rtw_gap_cycles: int = _cycles("idle data bus between read and written data")
    shared_command_bus: bool = Field(
        description="true: one bus takes all commands; false: row and column commands have a bus each",
        json_schema_extra=unit("yes or no"),
    )
    activate_slots: int = _count("cycles that an activate takes on its bus", 16, "cycles")
    column_slots: int = _count("cycles that a read or write takes on its bus", 16, "cycles")
    refresh: Literal["all-bank", "per-bank", "none"] = Field(
        description="banks that a refresh takes at once", json_schema_extra=unit("-")
    )
    refi_s: float = _time("tREFI: time in which every bank is refreshed once")
    rfc_all_bank_s: float = _time("tRFCab: time that a refresh of all banks takes")
    rfc_per_bank_s: float = _time("tRFCpb: time that a per-bank refresh takes")
    banks_per_refresh: int = _count("banks that one per-bank refresh takes", 64, "banks")
    channel_interleave_bytes: int = _count("consecutive bytes in one channel before the next", 1 << 30, "B")
    group_interleave_bytes: int = _count("consecutive bytes in one bank before the next group", 1 << 20, "B")
    queue_requests: int = _count("bursts that the controller chooses among", 1024, "requests")
    ecc_data_bytes: int = Field(
        ge=0,
        le=1 << 20,
        description="data bytes that one burst of error-correcting code stored beside them covers; 0: none",
        json_schema_extra=unit("B"),
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        burst = self.burst_bytes
        for name in ("row_bytes", "channel_interleave_bytes", "group_interleave_bytes"):
            if getattr(self, name) % burst:
                raise ValueError(f"{name} is {getattr(self, name)}: not a multiple of a burst of {burst} B")
        if self.row_bytes % self.group_interleave_bytes:
            raise ValueError(
                f"group_interleave_bytes is {self.group_interleave_bytes}: it must divide row_bytes, "
                f"{self.row_bytes}"
            )
        if self.refresh == "per-bank" and self.banks % self.banks_per_refresh:
            raise ValueError(
                f"banks_per_refresh is {self.banks_per_refresh}: it must divide {self.banks} banks"
            )
        if self.refresh != "none" and self._refresh_every < self.burst_cycles:
            raise ValueError(f"refi_s is {self.refi_s}: refreshes come faster than bursts")
        if self.refresh != "none" and self._refresh_cycles == 0:
            raise ValueError(f"refresh is {self.refresh!r}, but rfc_{self.refresh.replace('-', '_')}_s is 0")
        if self.refresh != "none" and self._refresh_cycles * 2 > self._refresh_every * self._refresh_sets:
            raise ValueError(
                f"refresh takes a bank {self._refresh_cycles} of every "
                f"{self._refresh_every * self._refresh_sets} cycles: at most half"
            )
        return self

    @property
    def banks(self) -> int:
        """Return the banks of the channel."""
        return self.bank_groups * self.banks_per_group

    @property
    def bytes(self) -> int:
        """Return the capacity of the channel."""
        return self.banks * self.rows * self.row_bytes

    @property
    def burst_bytes(self) -> int:
        """Return the bytes of one burst: the least that is read or written."""
        return max(1, self.burst_length * self.channel_bits // 8)

    @property
    def burst_cycles(self) -> int:
        """Return the cycles that a burst takes on the data pins, rounded: data sheets round the clock."""
        return max(1, round(self.burst_length / (self.transfers_per_s * self.tck_s)))

    @property
    def activate_pj(self) -> float:
        """Return the energy of opening and closing a row: so much for each of its bytes."""
        return ACTIVATE_PJ_PER_BYTE * self.row_bytes

    @property
    def bytes_per_s(self) -> float:
        """Return the peak bandwidth of the channel."""
        return self.transfers_per_s * self.channel_bits / 8

    @property
    def _refresh_sets(self) -> int:
        return self.banks // self.banks_per_refresh if self.refresh == "per-bank" else 1

    @property
    def _refresh_every(self) -> int:
        return 0 if self.refresh == "none" else int(self.refi_s / self.tck_s) // self._refresh_sets

    @property
    def _refresh_cycles(self) -> int:
        time = self.rfc_per_bank_s if self.refresh == "per-bank" else self.rfc_all_bank_s
        return int(np.ceil(time / self.tck_s - 1e-6))

    def at_rate(self, bytes_per_s: float) -> DramTiming:
        """Return the channel with another peak bandwidth: pins and clock change, times in the array do not.

        What the data pins set (burst, nCCD) keeps its cycles, what the array sets (nRCD, nRP, nRAS, nRC,
        nRRD, nFAW, nRTP, nWR, nWTR, the latencies) its seconds: so, about, do speed grades differ.
        """
        ratio = bytes_per_s / self.bytes_per_s
        if abs(ratio - 1.0) < 1e-9:
            return self
        pins = {"ccd_s_cycles", "ccd_l_cycles", "rtw_gap_cycles"}
        cycles = {
            name: int(np.ceil(getattr(self, name) * ratio - 1e-6))
            for name in type(self).model_fields
            if name.endswith("_cycles") and name not in pins
        }
        return self.model_copy(
            update={"transfers_per_s": self.transfers_per_s * ratio, "tck_s": self.tck_s / ratio, **cycles}
        )

    def rules(self) -> TimingRules:
        """Return what a controller must obey; formulas as in JESD79-5 and JESD209-5, in cycles."""
        return TimingRules(
            gap=self._gaps(),
            group=np.arange(self.banks) // self.banks_per_group,
            four_activates=self.faw_cycles,
            refresh_every=self._refresh_every,
            refresh=self._refresh_cycles,
            refresh_sets=self._refresh_sets,
            queue=self.queue_requests,
        )

    def _gaps(self) -> Array:
        """Return gap[scope, before, after] in cycles, -1 where there is no rule."""
        gap = np.full((3, 4, 4), -1, np.int64)
        written = self.cwl_cycles + self.burst_cycles  # write command to end of data
        gap[BANK, ACTIVATE] = [self.rc_cycles, self.ras_cycles, self.rcd_cycles, self.rcd_write_cycles]
        gap[BANK, PRECHARGE, ACTIVATE] = self.rp_cycles
        gap[BANK, [READ, WRITE], PRECHARGE] = [self.rtp_cycles, written + self.wr_cycles]
        for scope, ccd, rrd, wtr in (
            (GROUP, self.ccd_l_cycles, self.rrd_l_cycles, self.wtr_l_cycles),
            (CHANNEL, self.ccd_s_cycles, self.rrd_s_cycles, self.wtr_s_cycles),
        ):
            gap[scope, ACTIVATE, ACTIVATE] = rrd
            gap[scope, [READ, WRITE], [READ, WRITE]] = max(ccd, self.burst_cycles)
            gap[scope, WRITE, READ] = written + wtr
        turn = self.cl_cycles - self.cwl_cycles + self.burst_cycles + self.rtw_gap_cycles
        gap[CHANNEL, READ, WRITE] = max(turn, 0)
        slots = (self.activate_slots, 1, self.column_slots, self.column_slots)
        for before, taken in enumerate(slots):
            row = before in (ACTIVATE, PRECHARGE)
            same = slice(0, 4) if self.shared_command_bus else slice(0, 2) if row else slice(2, 4)
            gap[CHANNEL, before, same] = np.maximum(gap[CHANNEL, before, same], taken)
        return gap

    def place(self, address: Array) -> tuple[Array, Array]:
        """Return the bank and the row of byte addresses [n] within the channel, which wrap at its capacity.

        From the lowest: bytes of a stripe, bank group, stripe of the row, bank of the group, row.
        """
        stripe = np.asarray(address, np.int64) // self.group_interleave_bytes
        stripe, group = np.divmod(stripe, self.bank_groups)
        stripe //= self.row_bytes // self.group_interleave_bytes
        row, bank = np.divmod(stripe, self.banks_per_group)
        return group * self.banks_per_group + bank, row % self.rows

    def simulate(self, address: Array, write: Array, arrival_s: Array | None = None) -> DramRun:
        """Return when bursts at address[n] (bytes within the channel) are read or, where write[n], written.

        Bursts are asked for in this order, all at time 0 or at `arrival_s[n]`, which must not fall.
        """
        arrival = None if arrival_s is None else np.ceil(np.asarray(arrival_s) / self.tck_s).astype(np.int64)
        served, data = self._serve(np.asarray(address), np.asarray(write, bool), arrival, FOREVER)
        latency = np.where(write, self.cwl_cycles, self.cl_cycles) + self.burst_cycles
        finish_s = (served.issue[data] + latency) * self.tck_s
        counts = (served.hits, served.misses, served.conflicts, served.activates, served.refreshes)
        return DramRun(finish_s, len(data) - int(data.sum()), *counts)

    def _serve(
        self, address: Array, write: Array, arrival: Array | None, horizon: int
    ) -> tuple[Served, Array]:
        """Return what became of bursts [n] and of the code's bursts before them, and which carry data."""
        bank, row = self.place(address)
        data = np.ones(len(address), bool)
        if self.ecc_data_bytes:
            region = address // self.ecc_data_bytes
            new = np.flatnonzero(np.diff(region, prepend=-1) | np.diff(write, prepend=write[:1]))
            bank, row, write = (np.insert(x, new, x[new]) for x in (bank, row, write))
            arrival = None if arrival is None else np.insert(arrival, new, arrival[new])
            data = np.insert(data, new, False)
        return serve(self.rules(), bank, row, write, arrival, horizon=horizon), data

    def local_run(self, run_bytes: Array, channels: int = 1) -> Array:
        """Return the consecutive bytes that each of the channels sees of runs, an array of any shape."""
        run = np.maximum(np.asarray(run_bytes, np.float64), 1.0)
        return np.maximum(np.minimum(run, self.channel_interleave_bytes), run / channels)

    def efficiency(self, run_bytes: Array, write_share: float | Array = 0.0, channels: int = 1) -> Array:
        """Return the share of peak bandwidth that randomly placed runs of consecutive bytes reach.

        Of the bytes of whole bursts, the queue always full of runs, each read or, for `write_share` of them,
        written; the longest runs are streams. Never falls as runs grow. Runs lie over `channels` channels,
        evenly loaded. `run_bytes` and `write_share` broadcast.
        """
        run, share = np.broadcast_arrays(self.local_run(run_bytes, channels), np.clip(write_share, 0.0, 1.0))
        at = share * (len(WRITE_SHARES) - 1)
        out = np.zeros(run.shape)
        for column in range(len(WRITE_SHARES)):
            weight = np.maximum(0.0, 1.0 - np.abs(at - column))
            if weight.any():  # a share of writes that nobody asks for is not simulated
                curve = _curve(self, column)
                out += weight * np.interp(np.log2(run), curve.log2_bytes, curve.efficiency)
        return out

    def activates_per_byte(self, run_bytes: Array, channels: int = 1) -> Array:
        """Return the row activates a byte of randomly placed read runs, whole bursts, in any shape."""
        curve = _curve(self, 0)
        run = np.log2(self.local_run(run_bytes, channels))
        return np.exp2(np.interp(run, curve.log2_bytes, np.log2(curve.activates_per_byte)))

    def more_activates_per_byte(self, run_bytes: Array, channels: int = 1) -> Array:
        """Return the row activates a byte of randomly placed runs beyond those of a stream, in any shape."""
        stream = _curve(self, 0).activates_per_byte[-1]
        return np.maximum(self.activates_per_byte(run_bytes, channels) - stream, 0.0)

    def code_per_byte(self, run_bytes: Array, channels: int = 1) -> Array:
        """Return the bytes of error-correcting code that cross the pins with a byte of runs, in any shape.

        A burst of code for each stretch of `ecc_data_bytes` that a run touches in a channel, as `simulate`
        has it for runs that start at multiples of their length; code has no pins of its own.
        """
        if not self.ecc_data_bytes:
            return np.zeros(np.shape(run_bytes))
        local = np.maximum(self.local_run(run_bytes, channels), self.burst_bytes)
        return self.burst_bytes * np.ceil(local / self.ecc_data_bytes) / local


@dataclass(frozen=True)
class DramRun:
    """What a channel did: the time at which each burst's data has passed, and counts of all its bursts."""

    finish_s: Array
    ecc_bursts: int
    hits: int
    misses: int
    conflicts: int
    activates: int
    refreshes: int


class _Curve(NamedTuple):
    log2_bytes: Array
    efficiency: Array
    activates_per_byte: Array


@lru_cache(maxsize=256)
def _curve(timing: DramTiming, share: int) -> _Curve:
    """Return efficiency and activates by run length, simulated once for a share of writes."""
    longest = STREAM_ROWS * timing.row_bytes * timing.bank_groups
    doubled = 1 << np.arange(int(np.ceil(np.log2(longest / timing.burst_bytes))) + 1)
    bursts = np.union1d(doubled, 3 * doubled[:-2])  # thrice: runs that straddle stripes

    def simulated() -> Array:
        asked = [(int(n), n == bursts[-1]) for n in bursts]
        return np.array([measure(timing, n, WRITE_SHARES[share], stream=last) for n, last in asked])

    points = kept("dram", f"{_rules_text()} {timing!r} {WRITE_SHARES[share]}", (len(bursts), 2), simulated)
    rising, falling = np.maximum.accumulate(points[:, 0]), np.minimum.accumulate(points[:, 1])
    return _Curve(np.log2(bursts * timing.burst_bytes), np.minimum(rising, 1.0), falling)


@cache
def _rules_text() -> str:
    """Return the code by which DRAM is simulated."""
    here = Path(__file__)
    return "".join(x.read_text(encoding="utf-8") for x in (here, here.with_name("dram_controller.py")))


def measure(
    timing: DramTiming, run_bursts: int, write_share: float = 0.0, *, stream: bool = False, seed: int = SEED
) -> tuple[float, float]:
    """Return the share of peak that the controller reaches on runs of that length, and activates per byte.

    Runs start at multiples of their length, at random or, for a stream, one after another; each is written
    with probability `write_share`. Measured over whole refresh intervals, after a first one.
    """
    rules = timing.rules()
    least, once = LEAST_PERIOD_BURSTS * timing.burst_cycles, rules.refresh_every * rules.refresh_sets
    period = -(-least // once) * once if once else least
    period = min(period, MOST_BURSTS // (PERIODS + 1) * timing.burst_cycles)
    horizon = (PERIODS + 1) * period
    runs = -(-(horizon // timing.burst_cycles + timing.queue_requests) // run_bursts)
    rng = np.random.default_rng(seed)
    span = max(timing.bytes // (run_bursts * timing.burst_bytes), 1)
    start = np.arange(runs) if stream else rng.integers(0, span, runs)
    address = (start[:, None] * run_bursts + np.arange(run_bursts)).ravel() * timing.burst_bytes
    write = np.repeat(rng.random(runs) < write_share, run_bursts)
    served, data = timing._serve(address, write, None, horizon)
    served_at = served.issue[data]
    inside = max(int((served_at >= period).sum()), 1)
    total = max(int((served_at >= 0).sum()), 1)
    return inside * timing.burst_cycles / (horizon - period), served.activates / (total * timing.burst_bytes)
