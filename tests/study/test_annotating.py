"""Splits written into the model's file and read back: equal layouts, equal splits, equal times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.partition.annotations import annotated
from mtia_emu.compiler.partition.mesh import parse_parallel

from mtia_emu import api
from mtia_emu.study.annotating import write_annotated
from mtia_emu.study.partition import Partition, partition

from .test_strategies import cases

WITHIN = ("mixture-tiny pp=4", "mixture-tiny pp=8")  # cut within a node of the model, which has one stage
QUICK = 5  # one case in so many is tried in `make test`


def there_and_back(model: str, parallel: str, folder: Path) -> tuple[Partition, Partition]:
    with api.open_model(f"zoo:{model}", {"batch": 8}) as source:
        one = partition(source.graph(), parse_parallel(parallel))
        write_annotated(source, one, str(folder / "a.onnx"))
        again = load(folder / "a.onnx")
    return one, partition(again, annotated(again, parse_parallel("onnx"), 64).mesh)


@pytest.mark.parametrize(
    ("model", "parallel"),
    [
        pytest.param(*case, marks=[pytest.mark.deep] if number % QUICK else [])
        for number, case in enumerate(cases())
    ],
)
def test_a_split_read_back_is_the_split(model: str, parallel: str, tmp_path: Path) -> None:
    one, two = there_and_back(model, parallel, tmp_path)
    assert (one.split.inputs, one.split.outputs, one.split.shards) == (
        two.split.inputs,
        two.split.outputs,
        two.split.shards,
    )
    said = [
        [[(n.op, n.inputs, n.outputs, n.types, dict(n.attrs)) for n in s.nodes] for s in parts.stages]
        for parts in (one, two)
    ]
    if f"{model} {parallel}" in WITHIN:
        every = [Counter(str(node) for stage in stages for node in stage) for stages in said]
        assert every[0] == every[1]
    else:
        assert said[0] == said[1]


def test_a_run_writes_what_a_run_reads_by_default(
    cli: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
) -> None:
    file, on = tmp_path / "a.onnx", ("--system", "tiny-board", "--gpu", "none", "--json", "-")
    one = cli("run", "zoo:llama-tiny", *on, "--parallel", "pp=2,tp=2", "--annotations", file)
    two = cli("run", file, *on)
    import json

    said = [json.loads(run.stdout) for run in (one, two)]
    assert said[0]["seconds"] == said[1]["seconds"]
    assert "pp=2,tp=2,onnx=pp=2/tp=2" in two.stdout
    other = cli("run", file, *on, "--parallel", "tp=2")
    assert json.loads(other.stdout)["seconds"] != said[0]["seconds"]
    told = refused("run", "zoo:llama-tiny", "--annotations", file)
    assert "--system" in told
