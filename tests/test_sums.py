"""Numbers are added in one order: the last digits of a report do not depend on the version of Python."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import mtia_emu
from mtia_emu.sums import add_up

PRODUCT = Path(mtia_emu.__file__).parents[1]
OURS = tuple(str(PRODUCT / name) for name in ("mtia_emu", "compiler", "kernels"))


def test_each_number_is_added_to_those_before_it() -> None:
    assert add_up([0.1] * 10) == 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 != 1.0
    assert add_up([1e16, 1.0, 1.0]) == 1e16  # an exact sum is 10000000000000002
    assert add_up(iter(())) == 0 and add_up([2, 3]) == 5


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Python's own `sum` refuse floats in code of ours."""
    plain = builtins.sum

    def whole(values: Iterable[Any], start: Any = 0) -> Any:
        items = list(values)
        if any(type(x) is float for x in items):
            place = sys._getframe(1).f_code
            assert not place.co_filename.startswith(OURS), f"{place.co_filename}: {place.co_name} sums floats"
        return plain(items, start)

    monkeypatch.setattr(builtins, "sum", whole)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    "words",
    [
        ["run", "zoo:llama-tiny", "--json", "-"],
        ["run", "zoo:dlrm-small", "--dim", "batch=4", "--layers", "99"],
        ["gemm", "64", "256", "64", "--dtype", "int8", "--json", "-"],
        ["explain", "zoo:dlrm-small", "--dim", "batch=4", "--chip", "tiny"],
        ["area"],
        ["sweep", "--model", "zoo:dlrm-small,name=a,weight=0.3", "--model",
         "zoo:dlrm-small,name=b,weight=0.7", "--set", "dram.channels=1,2", "--jobs", "0", "-o", "{}"],
    ],
)  # fmt: skip
def test_no_report_sums_floats_by_the_version(words: list[str], cli: Any, tmp_path: Path) -> None:
    done = cli(*(word.format(tmp_path / "s.db") for word in words))
    assert done.exit_code == 0, done.output
