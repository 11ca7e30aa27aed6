"""Measured collectives of GPUs beside the library's protocols: what each row takes by each of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accuracy import tables
from mtia_emu.system.collectives import COPIED, Collective, algorithms, timed
from mtia_emu.system.library import Library, Protocol
from mtia_emu.system.load import load_system
from mtia_emu.system.topology import System

NCCL = {
    "a100-sxm-80gb": ("dgx-a100", "nccl-ampere"),
    "h100-sxm": ("dgx-h100", "nccl-hopper"),
    "h200-sxm": ("hgx-h200", "nccl-hopper"),
    "b200": ("hgx-b200", "nccl-blackwell"),
}
KINDS = {"alltoall": "all_to_all"}
DEVICES = {
    "NVIDIA A100-SXM4-80GB": "a100-sxm-80gb",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H200": "h200-sxm",
}
Array = np.ndarray
Frame = Any


def rows(name: str) -> Frame:
    """Return measured NCCL collectives: `kind`, `num_gpus`, `bytes`, `seconds`.

    From the package of tables; where that is not installed, from the reference folder. None without both.
    """
    import importlib.util

    if importlib.util.find_spec(tables.PACKAGE) is not None:
        found = tables.collectives(name)
        kinds = [KINDS.get(op, op) for op in found.op_name]
        return found.assign(kind=kinds)[["kind", "num_gpus", "bytes", "seconds"]]
    found = tables.reference("measured_collectives.csv")
    if found is None:
        return None
    found = found[(found.device.map(DEVICES) == name) & (found.dtype == "fp16")]
    found = found[found.op.str.startswith("nccl_")]
    kinds = [KINDS.get(op, op) for op in found.op.str.removeprefix("nccl_")]
    return found.assign(kind=kinds, bytes=2.0 * found.message_size, seconds=found.latency_s)[
        ["kind", "num_gpus", "bytes", "seconds"]
    ].reset_index(drop=True)


def with_library(system: System, library: Library) -> System:
    """Return a system with another library."""
    return replace(system, library=library)


def alone(name: str, library: Library) -> System:
    """Return a GPU's system with a library as it is, without the kernels that serving runtimes bring."""
    return with_library(load_system(NCCL[name][0]), library)


def modelled(system: System, found: Frame) -> Array:
    """Return the seconds of measured rows."""
    return np.array(
        [
            timed(system, Collective(kind, float(size), tuple(range(gpus)))).seconds
            for kind, size, gpus in zip(found.kind, found.bytes, found.num_gpus, strict=True)
        ]
    )


@dataclass(frozen=True)
class Parts:
    """What rows take by one protocol: hops, and seconds of bytes at the links' whole rate; inf: not by it."""

    hops: Array
    bytes_s: Array
    least_s: Array  # at a byte a second of what a chip sends
    own: Array  # bytes that are copied from a rank's own part


def parts(name: str, protocol: Protocol, found: Frame) -> Parts:
    """Return the parts of every row by a protocol, so that constants are fitted without timing anew."""
    bare = protocol.model_copy(
        update={
            "start_s": 0.0,
            "hop_s": 0.0,
            "peer_s": 0.0,
            "share": 1.0,
            "most_bytes_per_s": 0.0,
            "copy_bytes_per_s": 0.0,
        }
    )
    hop = bare.model_copy(update={"hop_s": 1.0})
    limited = bare.model_copy(update={"most_bytes_per_s": 1e9})
    out = [_times(name, x, found) for x in (bare, hop, limited)]
    able = np.isfinite(out[0])
    hops = np.round(np.subtract(out[1], out[0], out=np.zeros(len(found)), where=able))
    own = np.where(found.kind.isin(COPIED), found.bytes / found.num_gpus, 0.0)
    return Parts(hops, out[0], out[2] * 1e9, own)


def _times(name: str, protocol: Protocol, found: Frame) -> Array:
    system = alone(name, Library(name="one", text="one protocol", pipelines=True, protocols=(protocol,)))
    out = np.full(len(found), np.inf)
    for i, (kind, size, gpus) in enumerate(zip(found.kind, found.bytes, found.num_gpus, strict=True)):
        one = Collective(kind, float(size), tuple(range(gpus)))
        if algorithms(system, one):
            out[i] = timed(system, one).seconds
    return out


def combined(protocol: Protocol, p: Parts) -> Array:
    """Return the seconds of rows by a protocol with its constants."""
    most = protocol.most_bytes_per_s
    slow = np.maximum(p.bytes_s / protocol.share, p.least_s / most if most else 0.0)
    copy = p.own / protocol.copy_bytes_per_s if protocol.copy_bytes_per_s else 0.0
    return protocol.start_s + protocol.hop_s * p.hops + slow + copy
