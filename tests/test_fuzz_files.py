"""The maker of mutants: equal numbers give equal mutants, each kind is changed, each fault is told apart."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mtia_emu.errors import UserError
from mtia_emu.program.isa import COMMAND

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_files import bounded, checkpoint_files, mutate, mutate_onnx, mutate_store, mutate_zip
from fuzz_files.bounded import GOOD, REFUSED, Verdict, run
from fuzz_files.mutate import Files

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system has no /proc")
Change = Callable[[bytes, random.Random, bytes], bytes]


def _model() -> bytes:
    body = [helper.make_node("MatMul", ["x", "w"], ["h"], name="a"), helper.make_node("Relu", ["h"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 2)) for n in "xy")
    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 2), [1.0] * 4)
    return bytes(helper.make_model(helper.make_graph(body, "g", [x], [y], [weight])).SerializeToString())


def _store() -> bytes:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.execute("CREATE TABLE rows (point INTEGER PRIMARY KEY, params, status, reason, metrics, layers)")
    db.execute("INSERT INTO meta VALUES ('spec', '{\"a\": [1, 2]}')")
    db.execute("INSERT INTO rows VALUES (0, '{}', 'ok', '', '{\"x\": 1}', x'00')")
    db.commit()
    return bytes(db.serialize())


def _program() -> bytes:
    header = json.dumps({"launches": [{"block": 0, "name": "a"}], "notes": []}).encode()
    return mutate_zip.packed([("header.json", header), ("block0", np.zeros(3, COMMAND).tobytes())])


KINDS: dict[str, tuple[Change, bytes]] = {
    "plain": (mutate.plain, bytes(range(64))),
    "text": (mutate.text, b"[grid]\nrows = 2  # small\nname = 'tiny'\n"),
    "onnx": (mutate_onnx.model, _model()),
    "store": (mutate_store.store, _store()),
    "program": (mutate_zip.program, _program()),
    "safetensors": (checkpoint_files.safetensors, list(checkpoint_files.folders())[-2]["model.safetensors"]),
    "gguf": (checkpoint_files.gguf, checkpoint_files.gguf_file()),
    "arrays": (mutate_zip.arrays, mutate_zip.packed([("x.npy", mutate_zip.npy("'<f4'", "(2,)", bytes(8)))])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_is_changed_bounded_and_the_same_for_equal_draws(kind: str) -> None:
    change, data = KINDS[kind]
    mutants = [change(data, random.Random(seed), data) for seed in range(60)]
    assert mutants == [change(data, random.Random(seed), data) for seed in range(60)]
    assert len(set(mutants)) > 20 and max(map(len, mutants)) <= 3 * mutate.MOST_BYTES
    assert sum(m != data for m in mutants) > 40


@pytest.mark.parametrize("change", sorted({c.__name__ for c in mutate_onnx.CHANGES}))
def test_each_change_of_a_model_leaves_a_message_that_protobuf_reads(change: str) -> None:
    seen = set()
    for seed in range(20):
        proto = onnx.ModelProto.FromString(_model())
        getattr(mutate_onnx, change)(proto, random.Random(seed))
        seen.add(onnx.ModelProto.FromString(proto.SerializeToString()).SerializeToString())
    assert len(seen) > 1


def test_an_empty_file_can_be_changed() -> None:
    for seed in range(30):
        mutate.plain(b"", random.Random(seed), b"")
        mutate.text(b"", random.Random(seed), b"")


def _fine(path: Path, rng: random.Random) -> None:
    assert path.read_bytes()


def _refuses(path: Path, rng: random.Random) -> None:
    raise UserError("no")


def _fails(path: Path, rng: random.Random) -> None:
    {}["missing"]


def _floods(path: Path, rng: random.Random) -> None:
    bytearray(bounded.MEMORY_BYTES + (1 << 20))


def _dies(path: Path, rng: random.Random) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hangs(path: Path, rng: random.Random) -> None:
    while True:
        pass


READERS = {
    "fine": _fine,
    "refuses": _refuses,
    "fails": _fails,
    "floods": _floods,
    "dies": _dies,
    "hangs": _hangs,
}


def test_every_outcome_is_told_apart_and_a_dead_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CPU_S", 0.3)
    kinds = ["fine", "fails", "dies", "refuses", "floods", "hangs", "fine"]

    def made(number: int) -> tuple[str, Files]:
        return kinds[number], {"x.bin": b"x"}

    found = list(run(range(len(kinds)), made, READERS))
    outcomes = [GOOD, "KeyError", "died", REFUSED, "over 1024 MiB", "over 0.3 s", GOOD]
    assert [(v.number, v.kind, v.outcome) for v in found] == list(zip(range(7), kinds, outcomes, strict=True))
    assert [v.fault for v in found] == [False, True, True, False, True, True, False]
    assert found[2] == Verdict(2, "dies", "died", "signal 9")
