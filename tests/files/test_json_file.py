"""JSON files read without trusting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.files.json_file import read_json
from mtia_emu.files.toml import tuples


def test_what_is_json_comes_back(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, {"b": null}], "c": "d"}')
    assert read_json(tmp_path / "a.json", "any", 100) == {"a": [1, {"b": None}], "c": "d"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"1" * 50, "more than 40 bytes"),
        (b'[{"a": 1, "a": 2}]', "the key 'a' stands twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UserError, match=rf"a\.json: .*{said}.*right: a table"):
        read_json(tmp_path / "a.json", "a table", 40)


def test_of_many_keys_the_one_that_stands_twice_is_found_at_once(tmp_path: Path) -> None:
    keys = [*range(100_000), 99_999]
    (tmp_path / "a.json").write_text("{" + ",".join(f'"{key}":1' for key in keys) + "}")
    with pytest.raises(UserError, match="'99999' stands twice"):
        read_json(tmp_path / "a.json", "a table", 1 << 21)


def test_a_deep_file_and_a_name_that_no_file_has_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "a.json", "a table", 1 << 20)
    for name in ("none.json", "a\0.json", ""):
        with pytest.raises(UserError, match="cannot be read"):
            read_json(name, "a table", 40)


def test_lists_become_tuples_at_any_depth() -> None:
    assert tuples({"a": [1, [2, {"b": [3]}]], "c": "d"}) == {"a": (1, (2, {"b": (3,)})), "c": "d"}
