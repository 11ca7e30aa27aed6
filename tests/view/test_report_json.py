"""The page on the JSON report names every key that there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtia_emu.results.check import Check, LayerCheck, WrongCommand
from mtia_emu.results.power import PowerState
from mtia_emu.results.report import Report
from mtia_emu.results.report_json import SCHEMA, as_json
from mtia_emu.results.system_use import ExchangeUse, MemoryUse, ShardUse, StageUse, SystemUse

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "report-json.md").read_text(encoding="utf-8")
USE = SystemUse(
    "board",
    "tp=2",
    2,
    "tiny",
    (StageUse("all chips", 2, 3e-3, 2e-3, 1e-3, 1e-3, MemoryUse(1, 2, 3, 4, 100)),),
    (ExchangeUse("all chips", "all_reduce", "tp", 64, 2, 1, 1e-3, "ring, plain"),),
    1,
    0.0,
    1e-6,
    50.0,
    (ShardUse(0, ("t0",), 4096, 32),),
)
NAMED_BY_USERS = ("dims", "check.outputs")  # objects whose keys come from the model
BY_COMPONENT = ("power.leakage_w", "power.clock_w")  # whose keys are the fields of `Area`


def keys(value: Any, at: str = "") -> Iterator[str]:
    """Yield the path of every key: `layers[].name`, and `*` for a key that comes from the model."""
    if isinstance(value, list):
        for item in value:
            yield from keys(item, at + "[]")
    elif isinstance(value, dict):
        for key, item in value.items():
            path = f"{at}.{'*' if at in NAMED_BY_USERS + BY_COMPONENT else key}".lstrip(".")
            yield path
            yield from keys(item, path)


def test_every_key_is_documented(report: Report, gpu: Report, check: Check) -> None:
    command = WrongCommand(3, "store", "writes", ("1 load", "3 store"), "1 load")
    layer = LayerCheck("fc", "matmul", "matmul", 0, 0.5, 0.0001, 0.004, 64, command)
    state = PowerState(1e9, 9e8, 0.7, 0.75, 10.0, 4.0, 2.0, {"sram": 1.0}, {"sram": 1.0})
    report = replace(report + gpu, published=report.published, power=state, system=USE)
    there = set(keys(as_json(report, gpu, replace(check, layers=(layer,)))))
    there -= {f"{name}.*" for name in NAMED_BY_USERS + BY_COMPONENT}
    documented = re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)
    assert sorted(documented) == sorted(there)
    assert f"`{SCHEMA}`" in PAGE


def test_parts_are_there_only_when_asked_for(report: Report) -> None:
    assert not {"gpu", "versus_gpu", "check"} & as_json(report).keys()
