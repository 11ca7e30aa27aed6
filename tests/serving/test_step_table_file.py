"""Step tables on disk, read without trusting them."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.serving.step_table import GroupedSteps, ServingStep
from mtia_emu.serving.step_table_file import as_json, read_table, table_of, write_table

from .tables import constant_ratio, toy_table

TABLE = as_json(toy_table(constant_ratio(0.5)))


def same(one: GroupedSteps, other: GroupedSteps) -> bool:
    return as_json(one) == as_json(other)


def test_a_table_comes_back(tmp_path: Path) -> None:
    for table in (toy_table(), toy_table(constant_ratio(0.5))):
        write_table(tmp_path / "t.json", table)
        back = read_table(tmp_path / "t.json", "toy-model")
        assert same(back, table) and back.facts == table.facts
        step = ServingStep(((3, 9),), (4, 200))
        assert back.step(step) == table.step(step)


def test_a_table_of_another_model_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t.json", toy_table())
    with pytest.raises(UserError, match="of 'toy-model', not of 'other'"):
        read_table(tmp_path / "t.json", "other")


def test_one_by_hand_needs_no_digest_joules_or_errors() -> None:
    values = {k: v for k, v in TABLE.items() if k not in ("digest", "mixed", "source", "idle_w")}
    for name in ("linear", "head", "prefill", "decode"):
        values[name] = {k: v for k, v in values[name].items() if k not in ("joules", "error_s")}
    cost = table_of(values, "hand").step(ServingStep((), (4,)))
    assert cost.seconds > 0 and np.isnan(cost.joules) and cost.error_share == 0


def changed(path: str, value: Any) -> dict[str, Any]:
    out = copy.deepcopy({k: v for k, v in TABLE.items() if k != "digest"})
    *outer, last = path.split(".")
    inner = out
    for name in outer:
        inner = inner[name]
    inner[last] = value
    return out


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("schema", "other", "schema"),
        ("memory_bytes", 0, "memory_bytes"),
        ("kv_bytes_per_token", -1, "kv_bytes_per_token"),
        ("idle_w", float("nan"), "idle_w"),
        ("linear.sizes", [1, 1, 2], "rise"),
        ("linear.sizes", [1], "3 entries where 1"),
        ("linear.seconds", [1.0, 2.0, float("inf")], "finite"),
        ("linear.seconds", [1.0, -2.0, 3.0], "greater than or equal to 0"),
        ("linear.seconds", ["1", 2.0, 3.0], "number"),
        ("linear.more", 1, "Extra"),
        ("decode.x", list(range(2000)), "at most 1024"),
        ("prefill.seconds", [[1.0]], "entries"),
        ("mixed.ratios", [[[[0.0]]]], "greater than 0"),
        ("model", "m" * 5000, "at most 4096"),
    ],
)
def test_what_is_wrong_is_said(path: str, value: Any, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        table_of(changed(path, value), "t.json")
    assert "t.json" in str(error.value) and len(str(error.value)) < 1000


def test_a_changed_table_is_seen(tmp_path: Path) -> None:
    values = copy.deepcopy(TABLE)
    values["linear"]["seconds"][0] *= 2
    with pytest.raises(UserError, match="changed since"):
        table_of(values, "t.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "schema"),
        ("{", "not JSON"),
        (json.dumps(TABLE | {"digest": None, "idle_w": math.nan}), "idle_w: Input should be a finite number"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "not JSON"),
        ('{"schema":"mtia-emu.steps.v1","x":' + "[" * 800 + "]" * 800 + "}", "Field required|too deep"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_table(tmp_path / "t.json")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "none.json")


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_at_any_key_is_a_table_or_a_user_error(value: Any) -> None:
    for path in ("linear", "decode.y", "prefill.seconds", "machine", "mixed", "digest"):
        with contextlib.suppress(UserError):
            table_of(json.loads(json.dumps(changed(path, value))), "t.json")
