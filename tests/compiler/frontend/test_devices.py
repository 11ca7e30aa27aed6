"""ONNX's multi-device annotations, read and written; what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from mtia_emu.compiler.devices import DeviceConfiguration, NodeDevices, Sharding
from mtia_emu.compiler.frontend.devices import read_devices, with_devices

from ..partition.annotated_mlp import Edit, annotated_mlp, spec


def read(path: Path, edit: Edit | None = None) -> tuple[DeviceConfiguration, ...]:
    return read_devices(onnx.load(annotated_mlp(path / "m.onnx", edit)))


def test_shards_and_who_has_them_are_read(tmp_path: Path) -> None:
    (found,) = read(tmp_path)
    assert (found.name, found.devices, found.fault) == ("two", 2, "")
    up = found.nodes[0]
    assert up.tensors == {"w1": Sharding({1: 2}, ((0,), (1,))), "x": Sharding({}, ((0, 1),))}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    model = onnx.load(annotated_mlp(tmp_path / "m.onnx"))
    lies = Sharding({0: 2, 1: 2}, ((0, 4), (1, 5), (2, 6), (3, 7)))
    said = DeviceConfiguration("eight", 8, (NodeDevices("up", ("a",), {"w1": lies}, 1),))
    made = with_devices(model, said, {"w1": (64, 128)})
    assert read_devices(made) == (*read_devices(model), said)
    onnx.checker.check_model(made)
    assert read_devices(with_devices(made, said, {"w1": (64, 128)})) == read_devices(made), "in its place"


def unknown(model: Any) -> None:
    model.graph.node[0].device_configurations[0].configuration_id = "four"


def twice(model: Any) -> None:
    model.configuration.add(name="two", num_devices=2)


def devices(count: int) -> Edit:
    def edit(model: Any) -> None:
        model.configuration[0].num_devices = count

    return edit


def stage(number: int) -> Edit:
    def edit(model: Any) -> None:
        model.graph.node[0].device_configurations[0].pipeline_stage = number

    return edit


def listed(*numbers: int) -> Edit:
    def edit(model: Any) -> None:
        spec(model).device[:] = numbers

    return edit


def shards(count: int, size: int | None = None) -> Edit:
    def edit(model: Any) -> None:
        simple = spec(model).sharded_dim[0].simple_sharding[0]
        simple.num_shards = count
        if size is not None:
            simple.dim_value = size

    return edit


def tensor(name: str) -> Edit:
    def edit(model: Any) -> None:
        spec(model).tensor_name = name

    return edit


def again(model: Any) -> None:
    spec(model).sharded_dim.add(axis=1).simple_sharding.add(num_shards=1)


def names(model: Any) -> None:
    model.configuration[0].device.extend(["a", "b", "c"])


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (unknown, "annotated for configuration 'four', which the model does not have (right: two)"),
        (twice, "configuration 'two': a name that is empty or given twice"),
        (devices(0), "0 devices (right: 1 to 4096)"),
        (devices(2**31 - 1), "2147483647 devices (right: 1 to 4096)"),
        (names, "3 names of 2 devices"),
        (stage(-1), "node up: stage -1 (right: 0 to 4095)"),
        (stage(1 << 30), "stage 1073741824 (right"),
        (listed(0, 7), "%w1: device 7 of 2 (right: 0 to 1)"),
        (listed(0, 0), "%w1: a device is named twice"),
        (listed(0), "%w1: 1 devices or groups for 2 shards"),
        (shards(-1), "axis 1 in shards of [-1]"),
        (shards(0), "axis 1 in shards of [0]"),
        (shards(10**12), "2 devices or groups for 1000000000000 shards"),
        (shards(2, 127), "a dimension of 127 does not divide among 2"),
        (tensor("z"), "%z is neither read nor made there"),
        (again, "axis 1 is sharded twice"),
    ],
)
def test_what_is_wrong_is_kept_with_the_configuration(edit: Edit, fault: str, tmp_path: Path) -> None:
    found = read(tmp_path, edit)
    assert fault in found[0].fault and found[0].nodes == ()


def test_a_model_without_configurations_tells_of_nodes_that_name_one(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        del model.configuration[:]

    (found,) = read(tmp_path, edit)
    assert "which the model does not have (right: none is there)" in found.fault


def test_other_faults_do_not_keep_one_chip_from_running(tmp_path: Path) -> None:
    from mtia_emu import api

    path = annotated_mlp(tmp_path / "m.onnx", listed(0, 7))
    assert api.run(str(path), "tiny", gpu=None).report.seconds > 0
