"""Safetensors files are read as their format says, whatever stands in them, and never out of their folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import save_tensors

from mtia_emu.checkpoints import safetensors
from mtia_emu.checkpoints.safetensors import INDEX, SINGLE, headers, open_tensors
from mtia_emu.errors import UserError


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("dtype", "kind"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16), ("F32", np.float32)]
)
def test_values_are_read_by_name(dtype: str, kind: Any, tmp_path: Path) -> None:
    right = np.arange(6).reshape(2, 3).astype(kind)
    save_tensors(
        tmp_path / SINGLE, {"a": np.zeros(3, kind), "b": right, "empty": np.zeros((0, 4), kind)}, dtype
    )
    tensors = open_tensors(tmp_path)
    np.testing.assert_array_equal(tensors["b"].astype(np.float32), right.astype(np.float32))
    assert tensors["empty"].shape == (0, 4)
    with pytest.raises(UserError, match="no tensor c"):
        tensors["c"]


def test_an_index_says_which_file_holds_what(tmp_path: Path) -> None:
    for number in (1, 2):
        save_tensors(tmp_path / f"{number}.safetensors", {f"t{number}": np.full(2, number, np.float16)})
    places = {"t1": "1.safetensors", "t2": "2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert open_tensors(tmp_path)["t2"].tolist() == [2, 2]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places | {"t3": "1.safetensors"}}))
    with pytest.raises(UserError, match="t3 is not in"):
        open_tensors(tmp_path)


def test_tensors_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 3)
    places = {f"t{n}": f"{n // 2}.safetensors" for n in range(4)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    for number in (0, 1):
        own = {f"t{2 * number + n}": np.zeros(1, np.float16) for n in (0, 1)}
        save_tensors(tmp_path / f"{number}.safetensors", own)
    with pytest.raises(UserError, match="more than 3 tensors in all"):
        open_tensors(tmp_path)
    save_tensors(tmp_path / "0.safetensors", {f"t{n}": np.zeros(1, np.float16) for n in range(4)})
    with pytest.raises(UserError, match="4 tensors"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "..", "", "a\0"])
def test_an_index_does_not_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"t": name}}))
    with pytest.raises(UserError, match="no name of a file"):
        open_tensors(tmp_path)


def test_a_link_leads_out_only_to_the_hubs_cache(tmp_path: Path) -> None:
    blobs, home = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0"
    blobs.mkdir(parents=True)
    home.mkdir(parents=True)
    save_tensors(blobs / "beef", {"t": np.ones(1, np.float16)})
    (home / SINGLE).symlink_to(blobs / "beef")
    assert open_tensors(home)["t"].tolist() == [1]
    other = tmp_path / "other"
    other.mkdir()
    (other / SINGLE).symlink_to(blobs / "beef")
    with pytest.raises(UserError, match="leads out of its folder"):
        open_tensors(other)


ENTRY = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}
BROKEN: list[tuple[Any, int | None]] = [
    ({"t": ENTRY}, 1 << 62),
    ({"t": ENTRY}, 0),
    (b"{", None),
    (b"[" * 5000, None),
    ([], None),
    ({"t": 3}, None),
    ({"t": ENTRY | {"dtype": "F5"}}, None),
    ({"t": ENTRY | {"shape": [-2]}}, None),
    ({"t": ENTRY | {"shape": [3]}}, None),
    ({"t": ENTRY | {"shape": [1 << 59, 1 << 59]}}, None),
    ({"t": ENTRY | {"shape": [0, 1 << 59, 1 << 59], "data_offsets": [0, 0]}, "u": ENTRY}, None),
    (b'{"t": %b, "t": %b}' % (2 * (json.dumps(ENTRY).encode(),)), None),
    ({"t": ENTRY, "u": ENTRY}, None),  # one over the other
    ({"t": ENTRY | {"shape": [1], "data_offsets": [0, 2]}}, None),  # bytes that are nobody's
    ({"t": ENTRY | {"shape": [1], "data_offsets": [2, 4]}}, None),
    (3, None),
    ({"t": ENTRY | {"data_offsets": [4, 8]}}, None),
    ({"t": ENTRY | {"data_offsets": [4, 0]}}, None),
    ({"t": ENTRY | {"data_offsets": [0]}}, None),
]


@pytest.mark.parametrize(("header", "length"), BROKEN)
def test_a_broken_header_is_refused(header: Any, length: int | None, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        headers(raw(tmp_path / SINGLE, header, b"\0" * 4, length))
    assert "\n" not in str(error.value)


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_error_of_the_users(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / SINGLE
    path.write_bytes(data)
    try:
        headers(path)
    except UserError as error:
        assert str(path) in str(error)


def test_packed_values_are_refused_where_they_are_wanted(tmp_path: Path) -> None:
    save_tensors(tmp_path / SINGLE, {"t": np.zeros(4, np.uint8)}, "U8")
    with pytest.raises(UserError, match="t is packed as U8"):
        open_tensors(tmp_path)["t"]
