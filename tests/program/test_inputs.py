"""Arrays by name: what is read, what is refused, and inputs in a model's own types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.files.npz import read_npz, write_npz
from mtia_emu.program.inputs import input_arrays, typed_inputs
from mtia_emu.program.isa import Binding
from mtia_emu.types import parse_type


def binding(kind: str, name: str = "x") -> Binding:
    return Binding(name, parse_type(kind), parse_type(kind), "dram", 0)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_numpy_are_read(tmp_path: Path, packed: bool) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "in:b": np.array(3, np.int8), "c": np.zeros((0, 4), ">f4"),
              "d": np.asfortranarray(np.arange(6).reshape(2, 3)), "e": np.array([True, False])}  # fmt: skip
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", **arrays)
    back = read_npz(str(tmp_path / "x.npz"))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].shape == array.shape


def test_arrays_are_written_alike_each_time_and_numpy_reads_them(tmp_path: Path) -> None:
    arrays = {"out:y": np.arange(4, dtype=np.float16), "out:a/b:0": np.array(2.5)}
    for name in ("1.npz", "2.npz"):
        write_npz(str(tmp_path / name), arrays)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz") as back:
        assert sorted(back) == sorted(arrays)
        np.testing.assert_array_equal(back["out:y"], arrays["out:y"])


def test_bfloat16_survives_a_file(tmp_path: Path) -> None:
    x = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    write_npz(str(tmp_path / "x.npz"), {"x": x})
    back = typed_inputs(read_npz(str(tmp_path / "x.npz")), [binding("bf16[2]")])
    np.testing.assert_array_equal(back["x"].astype(float), x.astype(float))


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(1000))
    monkeypatch.setenv("MTIA_EMU_MEMORY_BYTES", "4000")
    with pytest.raises(UserError, match="at most 4000 are read; set MTIA_EMU_MEMORY_BYTES higher"):
        read_npz(str(tmp_path / "x.npz"))


def test_names_with_and_without_prefix() -> None:
    x = np.zeros(1)
    assert list(input_arrays({"in:a": x, "b": x, "out:c": x})) == ["a", "b"]
    with pytest.raises(UserError, match="input 'a' is given twice, as 'a' and as 'in:a'"):
        input_arrays({"in:a": x, "a": x})


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("fp16[2]", np.array([1.0, 2.0])),
        ("fp32[2]", np.array([1, 2])),
        ("int64[2]", np.array([1.0, 2.0])),
        ("int8[2]", np.array([-128, 127])),
        ("bool[2]", np.array([0, 1])),
        ("uint8[2]", np.array([True, False])),
        ("fp32[2]", np.array([1, 2], ml_dtypes.bfloat16)),
        ("fp32[]", 3.0),
    ],
)
def test_values_that_fit_are_converted(kind: str, given: Any) -> None:
    made = typed_inputs({"x": given}, [binding(kind)])["x"]
    assert made.dtype == parse_type(kind).dtype.numpy
    np.testing.assert_array_equal(made.astype(float), np.asarray(given).astype(float))


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("int64[2]", np.array([1.5, 2.0]), "with values that int64 cannot hold"),
        ("int64[2]", np.array([np.nan, 2.0]), "with values that int64 cannot hold"),
        ("int8[2]", np.array([300, 2]), "with values that int8 cannot hold"),
        ("uint64[2]", np.array([-1, 2]), "with values that uint64 cannot hold"),
        ("bool[2]", np.array([2, 0]), "with values that bool cannot hold"),
        ("fp32[2]", np.array(["a", "b"]), "the model takes fp32[2]"),
        ("fp32[2]", np.array([1j, 2]), "the model takes fp32[2]"),
        ("fp32[2]", np.array([None, 2]), "the model takes fp32[2]"),
        ("fp32[2]", np.array([1.0]), "is given as float64[1]; the model takes fp32[2]"),
    ],
)
def test_values_that_do_not_fit_are_refused(kind: str, given: np.ndarray, words: str) -> None:
    with pytest.raises(UserError) as caught:
        typed_inputs({"x": given}, [binding(kind)])
    assert words in str(caught.value) and "input 'x'" in str(caught.value)


def test_missing_and_unknown_inputs() -> None:
    with pytest.raises(UserError, match=r"no array for input 'mask' \(given: x\)"):
        typed_inputs({"x": np.zeros(1)}, [binding("fp32[1]"), binding("fp32[1]", "mask")])
    with pytest.raises(UserError, match="unknown input 'maks'; did you mean 'mask'"):
        typed_inputs({"maks": np.zeros(1)}, [binding("fp32[1]", "mask")])
