"""Annotations as layouts over a mesh, and splits as annotations: equal splits after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.devices import DeviceConfiguration
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.layout import Layout
from mtia_emu.compiler.partition.annotations import Annotations, annotated
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.study.partition import partition

from .annotated_mlp import Edit, annotated_mlp, spec


def graph(path: Path, edit: Edit | None = None) -> Graph:
    return load(annotated_mlp(path / "m.onnx", edit))


def found(path: Path, edit: Edit | None = None, text: str = "onnx", chips: int = 8) -> Annotations:
    return annotated(graph(path, edit), parse_parallel(text), chips)


def test_layouts_follow_shards(tmp_path: Path) -> None:
    made = found(tmp_path)
    assert str(made.mesh) == "tp=2,onnx=two"
    lies = made.asked.operands
    assert lies["a", "w1"] == Layout(((), ("tp",))) and lies["y", "w2"] == Layout((("tp",), ()))


def test_a_model_so_annotated_is_split_as_by_hand_and_computes_the_same(tmp_path: Path) -> None:
    made, whole = found(tmp_path), graph(tmp_path)
    split = propagate(whole, made.mesh, asked=made.asked)
    by_hand = propagate(whole, parse_parallel("tp=2"))
    assert [n.op for n in split.nodes] == [n.op for n in by_hand.nodes] == [
        "matmul", "relu", "matmul", "all_reduce",
    ]  # fmt: skip
    inputs = {"x": np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)}
    right, got = evaluate(whole, inputs), evaluate_split(split, inputs)
    assert np.allclose(got["y"], right["y"], atol=1e-4)


def rows(model: Any) -> None:
    """Let the first weight lie by rows, which a rule by itself does not choose."""
    spec(model).sharded_dim[0].axis = 0


def test_another_layout_than_a_rule_would_choose_is_kept(tmp_path: Path) -> None:
    made, whole = found(tmp_path, rows), graph(tmp_path, rows)
    split = propagate(whole, made.mesh, asked=made.asked)
    assert split.read["a", "w1"] == Layout((("tp",), ()))
    inputs = {"x": np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)}
    assert np.allclose(evaluate_split(split, inputs)["y"], evaluate(whole, inputs)["y"], atol=1e-4)


def grouped(model: Any) -> None:
    """Spread it over four devices: two groups that have one shard each, of every second device."""
    model.configuration[0].num_devices = 4
    for node, tensor in ((0, 0), (2, 0)):
        shards = spec(model, node, tensor)
        shards.device[:] = [-1, -2]
        for key, group in ((-1, (0, 2)), (-2, (1, 3))):
            shards.index_to_device_group_map.add(key=key).value.extend(group)
    spec(model, 0, 1).device[:] = [0, 1, 2, 3]
    spec(model, 0, 1).sharded_dim.add(axis=0).simple_sharding.add(num_shards=2)
    spec(model, 0, 1).device[:] = [-1, -2]
    for key, group in ((-1, (0, 1)), (-2, (2, 3))):
        spec(model, 0, 1).index_to_device_group_map.add(key=key).value.extend(group)


def test_groups_of_devices_and_a_split_batch_give_two_axes(tmp_path: Path) -> None:
    made = found(tmp_path, grouped)
    assert str(made.mesh) == "dp=2,tp=2,onnx=two"
    assert made.asked.operands["a", "x"] == Layout((("dp",), ()))


def staged(*numbers: int) -> Edit:
    def edit(model: Any) -> None:
        for node, number in zip(model.graph.node, numbers, strict=True):
            del node.device_configurations[:]
            node.device_configurations.add(configuration_id="two", pipeline_stage=number)

    return edit


def test_stages_are_those_of_the_nodes(tmp_path: Path) -> None:
    made = found(tmp_path, staged(0, 0, 1))
    parts = partition(graph(tmp_path, staged(0, 0, 1)), made.mesh)
    assert [[n.op for n in stage.nodes] for stage in parts.stages] == [["matmul", "relu"], ["matmul"]]
    assert parts.stages[1].received == {"b": 0}


def shards(count: int, devices: int) -> Edit:
    def edit(model: Any) -> None:
        model.configuration[0].num_devices = devices
        spec(model).sharded_dim[0].simple_sharding[0].num_shards = count
        spec(model).device[:] = range(devices)

    return edit


def cyclic(model: Any) -> None:
    """Let five devices have shards in an order that no axis gives."""
    shards(4, 4)(model)
    spec(model).device[:] = [0, 2, 1, 3]
    spec(model, 0, 1).device[:] = [0, 1, 2, 3]
    spec(model, 2, 0).device[:] = [0, 1, 2, 3]
    spec(model, 2, 0).sharded_dim[0].simple_sharding[0].num_shards = 4


def axis(model: Any) -> None:
    spec(model).sharded_dim[0].axis = 5


@pytest.mark.parametrize(
    ("edit", "text", "words"),
    [
        (shards(3, 3), "onnx", "%x : fp32[8,64] lies on devices 0, 1, stage 0 runs on 0, 1, 2"),
        (axis, "onnx", "%w1 : fp32[64,128] has no axis 5 (right: -2 to 1)"),
        (staged(1, 1, 0), "onnx", "stages go in a circle: matmul down of stage 0 reads %b, which stage 1"),
        (staged(1, 1, 1), "onnx", "no node is annotated for stage 0 of 2"),
        (None, "onnx=three", "unknown configuration of --parallel onnx 'three'"),
        (None, "onnx,tp=4", "configuration two is of 2 devices, not 4"),
    ],
)
def test_what_cannot_be_is_told(edit: Edit | None, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        made = found(tmp_path, edit, text)
        partition(graph(tmp_path, edit), made.mesh)
    assert words in str(told.value)


def test_a_dimension_that_does_not_divide_is_told(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        shards(3, 3)(model)
        for node, tensor in ((0, 1), (2, 0)):
            spec(model, node, tensor).device[:] = []
            del spec(model, node, tensor).sharded_dim[:]

    with pytest.raises(UserError, match=r"%w1 : fp32\[64,128\]: axis 1 does not divide among 3 shards"):
        found(tmp_path, edit)


def test_devices_in_any_order_along_primes_are_a_layout(tmp_path: Path) -> None:
    assert found(tmp_path, cyclic).asked.operands["a", "w1"] == Layout(((), ("tp.1", "tp.0")))


def test_shards_in_no_order_of_axes_are_refused(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        cyclic(model)
        spec(model).device[:] = [0, 1, 3, 2]

    with pytest.raises(UserError, match="in shards that no mesh of 4 devices gives"):
        found(tmp_path, edit)


def test_more_devices_than_chips_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mlp is annotated for 2 devices or more, there are 1"):
        found(tmp_path, chips=1)


def test_a_model_without_annotations_is_told() -> None:
    with pytest.raises(UserError, match="has no annotations for many devices"):
        annotated(Graph("g", [], {}, []), parse_parallel("onnx"), 8)


def test_the_largest_configuration_that_fits_is_taken(tmp_path: Path) -> None:
    some = tuple(DeviceConfiguration(f"c{n}", n) for n in (2, 4, 16))
    whole = graph(tmp_path).with_devices(some)
    assert annotated(whole, parse_parallel("onnx"), 8).configuration.name == "c4"
    assert annotated(whole, parse_parallel("onnx=c2"), 8).configuration.name == "c2"
