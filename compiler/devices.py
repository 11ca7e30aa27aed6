"""What a model says of the devices that it is to run on: plain data, read from ONNX and written back.

The fields are those of ONNX's multi-device annotations (IR version 11): `ModelProto.configuration` and
`NodeProto.device_configurations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sharding:
    """How a tensor lies over devices: `shards` by axis, which may count from the back, and who has each.

    `holders` are the devices of each shard, shards in row-major order; none where every device has its own in
    the order of devices.
    """

    shards: Mapping[int, int]
    holders: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class NodeDevices:
    """How one ONNX node runs, by its name and its results: shardings by tensor, and its pipeline stage."""

    name: str
    outputs: tuple[str, ...]
    tensors: Mapping[str, Sharding]
    stage: int | None = None


@dataclass(frozen=True)
class DeviceConfiguration:
    """One way to spread a model over so many devices. `fault` is what is wrong with it, "" if nothing is."""

    name: str
    devices: int
    nodes: tuple[NodeDevices, ...] = ()
    fault: str = ""
