"""What a sweep is asked to do: read, checked, refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mtia_emu.cli.options import assignments
from mtia_emu.errors import UserError
from mtia_emu.options import Options, declared, option
from mtia_emu.sweeps.spec import load_spec, make_spec, parse_model, parse_set

SMALL: dict[str, Any] = {
    "chip": "tiny",
    "model": [{"model": "zoo:llama-tiny"}],
    "set": {"dram.channels": [1, 2]},
}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"modle": []}, "unknown key 'modle'; did you mean 'model'"),
        ({"model": []}, "'model' is"),
        ({"model": [{"model": "zoo:llama-tiny", "wieght": 2}]}, "did you mean 'weight'"),
        ({"model": [{"model": "zoo:llama-tiny", "weight": 0}]}, "'model.0.weight' is '0'"),
        ({"model": [{"model": "zoo:llama-tiny", "weight": float("nan")}]}, "'model.0.weight' is 'nan'"),
        (
            {"model": [{"model": "a.onnx", "name": "x"}, {"model": "b.onnx", "name": "x"}]},
            "two models are called 'x'",
        ),
        ({"set": {"dram.chanels": [1]}}, "unknown parameter 'dram.chanels'; did you mean 'dram.channels'"),
        ({"set": {"dram.channels": []}}, "'dram.channels' has no values"),
        ({"set": {"dram.channels": "4..1 step 1"}}, "is empty"),
        ({"set": {"dram.channels": [float("nan")]}}, "nan is not a number"),
        ({"set": {"dram.channels": "1..9"}}, "a grid needs values of 'dram.channels'"),
        ({"link": {"dram.channels": "2"}}, "both set and linked"),
        ({"link": {"sram.bytes": "pe.local.byts * 2"}}, "did you mean 'pe.local.bytes'"),
        ({"link": {"sram.bytes": "exec('x')"}}, "is not arithmetic"),
        ({"constraints": ["area_mm2 <= limit"]}, "unknown name 'limit'"),
        ({"constraints": ["seconds < 1"]}, "unknown name 'seconds'"),
        ({"constraints": ["round(1, -999999999) <= 450"]}, "round to -999999999 places"),
        ({"link": {"pe.matrix.cols": "1 / 0"}}, "division by zero"),
        ({"set": {f"energy.mac_pj.{i}": "1..100000 step 1" for i in range(3)}}, "300000 values together"),
        ({"set": {f"energy.mac_pj.{i}": [1] for i in range(65)}}, "at most 64 items"),
        ({"objectives": ["speed"]}, "unknown objective 'speed'"),
        ({"objectives": ["seconds", "seconds"]}, "given twice"),
        ({"points": 5}, "a grid takes every point"),
        ({"method": "latin"}, "needs the number of 'points'"),
        ({"method": "latin", "points": 3, "set": {}}, "nothing varies"),
        ({"method": "annealing"}, "'method' is 'annealing'"),
        ({"chip": "mtia-9"}, "unknown chip 'mtia-9'"),
        ({"seed": -1}, "'seed' is '-1'"),
        ({"seed": 1 << 32}, "'seed' is '4294967296'"),
        ({"silicon": {"cost.wafer": 1.0}}, "silicon: unknown key 'cost.wafer'"),
        ({"model": 3}, "'model' is '3'"),
        (
            {"model": [{"model": "s\udcff.onnx"}]},
            r"spec: 'model.0.model' is 's\\udcff.onnx', which is not UTF-8[^;]*$",
        ),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_spec(SMALL | changes).axes  # noqa: B018


def test_models_get_a_name_each() -> None:
    twice = [
        {"model": "zoo:llama-tiny"},
        {"model": "zoo:llama-tiny", "dims": {"seq": 1}},
        {"model": "x/m.onnx"},
    ]
    assert [m.name for m in make_spec(SMALL | {"model": twice}).model] == ["llama-tiny", "llama-tiny-2", "m"]


def test_the_digest_follows_what_decides_the_rows() -> None:
    base = make_spec(SMALL)
    assert base.digest == make_spec(dict(SMALL)).digest
    changes = [
        {"seed": 1},
        {"chip": "mtia-1"},
        {"constraints": ["area_mm2 < 9"]},
        {"silicon": {"cost.wafer_mm": 200.0}},
    ]
    digests = {make_spec(SMALL | c).digest for c in changes}
    assert len(digests) == 4 and base.digest not in digests


def test_a_file_is_read_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text('chip = "tiny"\n[set]\n"dram.channels" = [1, 2]\n', encoding="utf-8-sig")
    assert load_spec(file) == {"chip": "tiny", "set": {"dram.channels": [1, 2]}}
    file.write_text("x = [")
    with pytest.raises(UserError, match="not TOML"):
        load_spec(file)
    file.write_text("#" * (1 << 19))
    with pytest.raises(UserError, match="at most 262144 are read"):
        load_spec(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_spec(file)
    with pytest.raises(UserError, match="is not a file"):
        load_spec(tmp_path)


@dataclass(frozen=True)
class More(Options):
    """Options with three more that a workload has."""

    kind: str = option("a", "Kind.", "workload", choices=("a", "b"))
    deep: bool = option(False, "Deep.", "workload")
    depth: int = option(1, "Depth.", "workload", metavar="INT")


def test_a_new_option_of_a_workload_is_no_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    def more(kind: type = More, use: str | None = None) -> Iterator[Any]:
        return declared(More if kind is Options else kind, use)

    monkeypatch.setattr("mtia_emu.sweeps.spec.declared", more)
    monkeypatch.setattr("mtia_emu.cli.options.declared", more)
    assert parse_model("m,seq=1,dtype=int8,kind=b,deep=true,depth=3") == {
        "model": "m", "dims": {"seq": 1}, "dtype": "int8", "kind": "b", "deep": True, "depth": 3,
    }  # fmt: skip
    assert assignments("workload") == "dtype=TYPE, mapping=FILE.toml|TEXT, kind=a|b, deep=VALUE, depth=INT"


def test_flags_say_the_same() -> None:
    assert parse_set("pe.matrix.rows=16,32,64") == ("pe.matrix.rows", [16, 32, 64])
    assert parse_set('x="a",b,1.5,true') == ("x", ["a", "b", 1.5, True])
    assert parse_set("x=16..128 step x2") == ("x", "16..128 step x2")
    assert parse_model("zoo:llama-3-8b,seq=1,past=2048,weight=2,name=decode") == {
        "model": "zoo:llama-3-8b",
        "dims": {"seq": 1, "past": 2048},
        "weight": 2.0,
        "name": "decode",
    }
    for text in ("x", "=1", "x="):
        with pytest.raises(UserError, match="not KEY=VALUES"):
            parse_set(text)
    for text in ("m,seq", "m,seq=x", "m,weight=x", "m,=1"):
        with pytest.raises(UserError, match="--model"):
            parse_model(text)
