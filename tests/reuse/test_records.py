"""Small results on disk: what comes back is what was kept, and nothing else is believed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu import settings
from mtia_emu.machine.memories import Memory
from mtia_emu.reuse import records as module
from mtia_emu.reuse.records import Records, dumped, loaded, records
from mtia_emu.types import FP16, DType

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class Inner:
    kind: DType
    place: Memory
    ends: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Outer:
    name: str
    on: bool
    count: int
    share: float
    busy: dict[str, float]
    times: np.ndarray[Any, Any]
    inner: Inner | None = None
    more: tuple[Inner, ...] = ()


INNERS = st.builds(
    Inner, st.just(FP16), st.sampled_from(Memory), st.lists(st.tuples(st.integers(), FINITE)).map(tuple)
)
OUTERS = st.builds(
    Outer,
    st.text(st.characters(codec="utf-8")),
    st.booleans(),
    st.integers(),
    FINITE,
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), FINITE, max_size=4),
    st.just(np.zeros(0)),
    st.none() | INNERS,
    st.lists(INNERS, max_size=3).map(tuple),
)


def text(value: Outer) -> str:
    return repr((value.name, value.on, value.count, value.share, value.busy, value.inner, value.more))


@given(OUTERS)
def test_what_comes_back_is_what_was_kept_to_the_bit(value: Outer) -> None:
    back = loaded(Outer, json.loads(json.dumps(dumped(value))))
    assert text(back) == text(value) and back.times.shape == (0,)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (int, 1.0), (int, True), (int, "1"), (float, "1"), (float, True), (float, None), (str, 1), (bool, 0),
        (DType, "fp17"), (DType, ["fp16"]), (Memory, "disk"), (Memory, 3), (tuple[int, ...], 3),
        (tuple[int, ...], [1, "2"]), (tuple[int, str], [1]), (tuple[int, str], [1, "a", 2]),
        (dict[str, float], []), (dict[str, float], {"a": "b"}), (np.ndarray[Any, Any], [1.0]),
        (Inner, []), (Inner, ["fp16", "dram"]), (Inner, {"kind": "fp16"}), (Inner | None, 0), (object, [1]),
    ],
)  # fmt: skip
def test_what_is_of_another_form_is_refused(form: Any, data: object) -> None:
    with pytest.raises(Exception) as caught:
        loaded(form, data)
    assert isinstance(caught.value, module.WRONG)


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made, kept = [], Records(tmp_path)

    def make() -> tuple[int, ...]:
        made.append(1)
        return 1, 2

    for _ in range(2):
        assert kept.kept("one", tuple[int, ...], make) == (1, 2)
    assert kept.kept("other", tuple[int, ...], make) == (1, 2) and len(made) == 2
    kept.drop("one")
    kept.drop("one")
    assert kept.find("one", tuple[int, ...]) is None and kept.find("other", tuple[int, ...]) == ((1, 2),)
    assert kept.kept("nothing", int | None, lambda: None) is None and kept.find("nothing", int | None) == (
        None,
    )


@pytest.mark.parametrize("spoil", [b"", b"nonsense" * 9, None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, spoil: bytes | None) -> None:
    kept = Records(tmp_path)
    kept.keep("one", (1, 2))
    (file,) = tmp_path.iterdir()
    if spoil is None:
        whole = bytearray(file.read_bytes())
        whole[-2] ^= 1
        spoil = bytes(whole)
    file.write_bytes(spoil)
    assert kept.find("one", tuple[int, ...]) is None
    assert kept.kept("one", tuple[int, ...], lambda: (3,)) == (3,)
    assert kept.find("one", tuple[int, ...]) == ((3,),)
    assert kept.find("one", int) is None  # of another form


def test_what_is_too_large_or_no_number_is_not_kept(tmp_path: Path) -> None:
    kept = Records(tmp_path)
    for value in (float("nan"), float("inf"), "x" * (module.MOST_BYTES + 1), np.ones(3)):
        kept.keep("one", value)
    assert list(tmp_path.iterdir()) == []


def test_there_are_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 8)
    monkeypatch.setattr(module, "ONCE", 2)
    kept = Records(tmp_path)
    for number in range(64):
        kept.keep(f"{number}", number)
    assert 0 < len(list(tmp_path.iterdir())) < 32


def test_they_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path))
    assert records() is None  # by the tests' own environment
    monkeypatch.setenv(settings.BLOCKS.name, "1")
    found = records()
    assert found is not None and found.place.parent == tmp_path
    if os.name == "posix":
        assert found.place.stat().st_mode & 0o077 == 0
        found.place.chmod(0o777)
        tmp_path.chmod(0o777)
        assert records() is None
