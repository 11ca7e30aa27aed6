"""Verdicts and models as rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from mtia_emu.conformance import tables
from mtia_emu.conformance.cases import Verdict
from mtia_emu.conformance.models import FormatRun, ModelVerdict

VERDICTS = [
    Verdict("a", "Add", "passed"),
    Verdict("b", "Add", "failed", "y is off by up to 1"),
    Verdict(
        "c", "Loop", "unsupported", "c.onnx: 1 nodes are not supported:\n  Loop x1: it runs on (loop)", ("m",)
    ),
    Verdict("d", "Loop", "passed", "", ("m",), True),
]


def test_rows_count_each_outcome_and_say_why() -> None:
    assert tables.operator_rows(VERDICTS) == [
        ["Add", "2", "1", "1", "", "y is off by up to 1"],
        ["Loop", "2", "1", "", "1", "it runs on"],
    ]
    count = tables.totals(VERDICTS)
    assert count == {"cases": 4, "passed": 2, "failed": 1, "unsupported": 1, "bound": 1, "folded": 1}


def test_errors_beyond_tolerance_are_marked() -> None:
    runs = {
        "fp32": FormatRun(1e-7, 1e-4),
        "fp16": FormatRun(0.5, 0.01),
        "bf16": FormatRun(1.0, 0.0, "no such operator"),
    }
    (row,) = tables.model_rows([ModelVerdict("m", 3, runs)])
    assert row == ["m", "3", "1.0e-07", "5.0e-01, above 0.01", "refused", "no such operator"]
    (row,) = tables.model_rows([ModelVerdict("w", 9, {}, 0.25)])
    assert row[2:] == ["", "", "", "no weights or inputs: timed at 0.25 s"]


def test_the_command_prints_tables_and_writes_verdicts(cli: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "verdicts.json"
    result = cli("conformance", "--op", "Neg", "--case", "test_add", "--json", out)
    assert result.exit_code == 0 and "3 of 3 cases pass, 0 fail, 0 are unsupported" in result.stdout
    assert {v["op"] for v in json.loads(out.read_text())["cases"]} == {"Add", "Neg"}


def test_the_command_refuses_unknown_operators(refused: Callable[..., str]) -> None:
    assert "did you mean 'Einsum'" in refused("conformance", "--op", "Einsun")
