"""ONNX's multi-device annotations, read without trusting them, and written.

What is wrong with a configuration is kept in it, and told by whoever uses it: one chip need not care.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtia_emu.errors import UserError

from ..devices import DeviceConfiguration, NodeDevices, Sharding

MOST = 4096  # devices of a configuration
IR = 11  # the first version of ONNX's format that has annotations
RIGHT = "as ONNX's onnx.proto says of IR version 11"


def read_devices(model: Any) -> tuple[DeviceConfiguration, ...]:
    """Return the configurations of a ModelProto, with what its nodes say of each."""
    names = [str(c.name) for c in model.configuration]
    known = set(names)
    strange = [
        f"node {node.name or node.output[0]} is annotated for configuration {c.configuration_id!r}, which "
        f"the model does not have (right: {', '.join(names) or 'none is there'})"
        for node in model.graph.node
        for c in node.device_configurations
        if c.configuration_id not in known
    ]
    if names:
        return tuple(_configuration(model, c, names, strange) for c in model.configuration)
    return (DeviceConfiguration("", 0, (), strange[0]),) if strange else ()


def _configuration(model: Any, proto: Any, names: list[str], strange: list[str]) -> DeviceConfiguration:
    name, count = str(proto.name), int(proto.num_devices)
    try:
        if strange:
            raise UserError(strange[0])
        if not name or names.count(name) > 1:
            raise UserError(f"configuration {name!r}: a name that is empty or given twice")
        if not 1 <= count <= MOST:
            raise UserError(f"configuration {name}: {count} devices (right: 1 to {MOST})")
        if proto.device and len(proto.device) != count:
            raise UserError(f"configuration {name}: {len(proto.device)} names of {count} devices")
        return DeviceConfiguration(name, count, tuple(_nodes(model, name, count)))
    except UserError as error:
        return DeviceConfiguration(name, count, (), str(error))


def _nodes(model: Any, name: str, count: int) -> Iterator[NodeDevices]:
    for node in model.graph.node:
        for said in node.device_configurations:
            if said.configuration_id == name:
                where = f"configuration {name}: node {node.name or node.output[0]}"
                stage = int(said.pipeline_stage) if said.HasField("pipeline_stage") else None
                if stage is not None and not 0 <= stage < MOST:
                    raise UserError(f"{where}: stage {stage} (right: 0 to {MOST - 1})")
                tensors = {str(x.tensor_name): _sharding(x, node, count, where) for x in said.sharding_spec}
                yield NodeDevices(str(node.name), tuple(node.output), tensors, stage)


def _sharding(spec: Any, node: Any, count: int, where: str) -> Sharding:
    tensor = str(spec.tensor_name)
    where = f"{where}: %{tensor}"
    if tensor not in (*node.input, *node.output):
        raise UserError(f"{where} is neither read nor made there")
    shards: dict[int, int] = {}
    for dim in spec.sharded_dim:
        parts = [int(s.num_shards) for s in dim.simple_sharding]
        if not parts or min(parts) < 1 or any(p > 1 for p in parts[1:]):
            raise UserError(f"{where}: axis {dim.axis} in shards of {parts} (right: one count, 1 or more)")
        if dim.axis in shards:
            raise UserError(f"{where}: axis {dim.axis} is sharded twice")
        size = dim.simple_sharding[0]
        if size.HasField("dim_value") and size.dim_value % parts[0]:
            raise UserError(f"{where}: a dimension of {size.dim_value} does not divide among {parts[0]}")
        shards[int(dim.axis)] = parts[0]
    return Sharding(shards, _holders(spec, math.prod(shards.values()), count, where))


def _holders(spec: Any, shards: int, count: int, where: str) -> tuple[tuple[int, ...], ...]:
    """Return the devices of each shard."""
    groups = {int(entry.key): tuple(map(int, entry.value)) for entry in spec.index_to_device_group_map}
    if not spec.device:
        return ()
    holders = tuple(groups.get(int(d), (int(d),)) for d in spec.device)
    every = [d for group in holders for d in group]
    if strange := [d for d in every if not 0 <= d < count]:
        raise UserError(f"{where}: device {strange[0]} of {count} (right: 0 to {count - 1})")
    if len(set(every)) < len(every):
        raise UserError(f"{where}: a device is named twice")
    if shards == 1:
        return (tuple(every),)  # each of them has the whole
    if len(holders) != shards:
        raise UserError(f"{where}: {len(holders)} devices or groups for {shards} shards (right: {RIGHT})")
    return holders


def with_devices(model: Any, configuration: DeviceConfiguration, types: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a ModelProto annotated with a configuration, in place of one of its name; others stay.

    `types` are the shapes of tensors.
    """
    kept = type(model)()
    kept.CopyFrom(model)
    kept.ir_version = max(kept.ir_version, IR)
    others = [c for c in model.configuration if c.name != configuration.name]
    del kept.configuration[:]
    kept.configuration.extend(others)
    kept.configuration.add(name=configuration.name, num_devices=configuration.devices)
    by_output = {v: node for node in configuration.nodes for v in node.outputs}
    for node in kept.graph.node:
        old = [c for c in node.device_configurations if c.configuration_id != configuration.name]
        del node.device_configurations[:]
        node.device_configurations.extend(old)
        said = next((by_output[v] for v in node.output if v in by_output), None)
        if said is not None:
            _write(node.device_configurations.add(configuration_id=configuration.name), said, types)
    return kept


def _write(proto: Any, said: NodeDevices, types: Mapping[str, tuple[int, ...]]) -> None:
    if said.stage is not None:
        proto.pipeline_stage = said.stage
    for tensor, sharding in said.tensors.items():
        spec = proto.sharding_spec.add(tensor_name=tensor)
        spec.device.extend(_devices(spec, sharding.holders))
        for axis, count in sharding.shards.items():
            spec.sharded_dim.add(axis=axis).simple_sharding.add(
                dim_value=types[tensor][axis], num_shards=count
            )


def _devices(spec: Any, holders: Iterable[tuple[int, ...]]) -> Iterator[int]:
    """Yield the number of each shard's device, or of its group, which is written beside them."""
    for number, group in enumerate(holders, 1):
        if len(group) > 1:
            entry = spec.index_to_device_group_map.add(key=-number)
            entry.value.extend(group)
        yield group[0] if len(group) == 1 else -number
