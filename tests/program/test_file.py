"""Programs on disk: written whole, read back alike, and never trusted."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from mtia_emu import api, zoo
from mtia_emu.errors import UserError
from mtia_emu.program import file as program_file
from mtia_emu.program.isa import COMMAND, Program
from mtia_emu.program.text import dump

Cli = Callable[..., Result]
Change = Callable[[dict[str, Any]], object]
Edit = Callable[[str, bytes], bytes]
DIMS = {"batch": 6}
HEADS = {
    "batch": 1, "kv_heads": 1, "group": 1, "queries": 1, "keys": 1, "key_size": 1, "value_size": 1,
}  # fmt: skip

CODES = {0, 2}
SAME = (
    "model", "source", "dtype", "dims", "chip", "launches", "inputs", "outputs", "consts", "works", "notes",
    "groups", "dram_bytes", "sram_bytes",
)  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    """Return a recommender with weights."""
    return api.compile_model("zoo:dlrm-small", dims=DIMS, seed=1)


@pytest.fixture(scope="module")
def good(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its file."""
    path = tmp_path_factory.mktemp("program") / "good.mtia"
    program_file.save(program, path)
    return path


@pytest.fixture(scope="module")
def inputs(good: Path) -> Path:
    """Return inputs for it."""
    path = good.parent / "io.npz"
    np.savez(path, **zoo.example_inputs("dlrm-small", zoo.dims("dlrm-small") | DIMS, 1))
    return path


def group(header: dict[str, Any], parts: list[int], at: int) -> dict[str, Any]:
    """Return a group of works of a header."""
    return {"work": header["works"][0], "parts": parts, "at": at}


def rewritten(good: Path, path: Path, edit: Edit) -> Path:
    """Write a copy whose members went through `edit`."""
    with (
        zipfile.ZipFile(good) as old,
        zipfile.ZipFile(path, "w", compresslevel=1) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, edit(info.filename, old.read(info)), info.compress_type)
    return path


def with_header(good: Path, path: Path, change: Change) -> Path:
    """Write a copy whose header is changed."""

    def edit(name: str, data: bytes) -> bytes:
        if name != "header.json":
            return data
        header = json.loads(data)
        change(header)
        return json.dumps(header).encode()

    return rewritten(good, path, edit)


def with_commands(good: Path, path: Path, block: int, change: Callable[[Any], object]) -> Path:
    """Write a copy with the commands of a block changed."""

    def edit(name: str, data: bytes) -> bytes:
        if name != f"block{block}":
            return data
        commands = np.frombuffer(bytearray(data), COMMAND)
        change(commands)
        return commands.tobytes()

    return rewritten(good, path, edit)


def test_what_is_saved_is_what_is_loaded(program: Program, good: Path) -> None:
    back = program_file.load(good)
    for name in SAME:
        assert getattr(back, name) == getattr(program, name), name
    for ours, theirs in zip(back.blocks, program.blocks, strict=True):
        assert (ours.commands == theirs.commands).all()
        assert (ours.kernel, ours.operands, ours.slots, ours.scalar) == (
            theirs.kernel, theirs.operands, theirs.slots, theirs.scalar)  # fmt: skip
    for name, array in program.data.items():
        np.testing.assert_array_equal(back.data[name].array(), array)
    assert dump(back) == dump(program)


def test_equal_programs_are_equal_files(program: Program, good: Path, tmp_path: Path) -> None:
    program_file.save(program_file.load(good), tmp_path / "again.mtia")
    assert (tmp_path / "again.mtia").read_bytes() == good.read_bytes()


def test_a_loaded_program_computes_the_same(program: Program, good: Path, inputs: Path) -> None:
    with np.load(inputs) as arrays:
        given = dict(arrays)
    first, other = (api.run(p, inputs=given, gpu=None) for p in (program, program_file.load(good)))
    assert first.report == other.report
    for name, array in first.outputs.items():
        np.testing.assert_array_equal(array, other.outputs[name])


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x08\x07onnx", bytes(1000)]
)
def test_files_that_are_no_programs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.mtia").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.mtia: not a program of mtia-emu"):
        program_file.load(tmp_path / "p.mtia")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(format="x"), "not a program of mtia-emu"),
        (lambda h: h.update(version=1), "of version 1, this is version 6 (right: 6); compile it again"),
        (lambda h: h["blocks"][0].update(bands=[0]), "bands begin at rows [0]"),
        (
            lambda h: h["launches"][0].update(parts=[{"name": "x", "op": "y", "origin": ""}] * 9),
            "9 layers on",
        ),
        (lambda h: h.update(extra=1), "extra"),
        (lambda h: h.pop("dtype"), "dtype"),
        (lambda h: h.update(dtype="fp17"), "unknown dtype 'fp17'"),
        (lambda h: h.update(dram_bytes=-1), "dram_bytes"),
        (lambda h: h.update(dram_bytes=1 << 61), "dram"),
        (lambda h: h.update(dram_bytes=64), "outside the memory"),
        (lambda h: h["chip"].update(clock_hz=float("nan")), "clock_hz"),
        (lambda h: h["chip"]["grid"].update(rows=10**9), "grid.rows"),
        (lambda h: h["chip"]["grid"].update(rows=1, cols=1), "no such PE"),
        (lambda h: h["launches"][0].update(block=10**6), "block 1000000"),
        (lambda h: h["launches"][0].update(addresses=[0]), "1 addresses for"),
        (lambda h: h["launches"][0]["addresses"].__setitem__(0, 1 << 50), "leaves"),
        (lambda h: h["inputs"][0].update(type="fp16[99999999999]"), "outside the memory"),
        (lambda h: h["inputs"][0].update(type="fp16[²]"), "not a tensor type: 'fp16[²]'"),
        (lambda h: h["inputs"][0].update(type=f"fp16[{'9' * 5000}]"), "not a tensor type: 'fp16[99999"),
        (lambda h: h.update(notes=[""] * (1 << 21)), "header.json has some"),
        (lambda h: h.update(launches=[{}] * 5), "launches.0.block Field required"),
        (lambda h: h["inputs"][0].update(model_type="fp16[1]"), "but fp16[1] to its user"),
        (lambda h: h["consts"][0].update(type="fp16[" + "1," * 90 + "1]"), "at most 64 dimensions"),
        (lambda h: h["blocks"][0].update(commands=1 << 40), "commands"),
        (lambda h: h["blocks"][0].update(commands=3), "has"),
        (lambda h: h["blocks"][0]["operands"][0].update(space="moon"), "right: dram, sram, scratch"),
        (lambda h: h["blocks"][0]["slots"][0].update(bytes=1 << 40), "slot s0"),
        (lambda h: h["data"].append("nothing"), "data for unknown weight 'nothing'"),
        (lambda h: h["works"][0].update(kind="magic"), "unknown kind 'magic' (right: product, attention"),
        (lambda h: h["works"][0].update(sizes={}), "right for"),
        (lambda h: h["works"][0]["sizes"].update(stray=1), "right for"),
        (lambda h: h["works"][0]["sizes"].update(flops=-1), "flops"),
        (lambda h: h["works"][0]["sizes"].update(flops=1 << 63), "flops"),
        (lambda h: h["works"][0]["sizes"].update(flops=None), "flops"),
        (lambda h: h["works"][0].update(kind="attention", sizes=dict(HEADS, keys=0)), "right: at least 1"),
        (lambda h: h["groups"].append(group(h, [0], 1)), "runs in place of work 1; right: one of its parts"),
        (lambda h: h["groups"].append(group(h, [0, 0], 0)), "has the parts 0, 0; right"),
        (lambda h: h["groups"].append(group(h, [10**6], 10**6)), "has the parts 1000000; right"),
        (lambda h: h["groups"].append(group(h, [], 0)), "parts"),
        (lambda h: h["groups"].extend([group(h, [0], 0), group(h, [0, 1], 1)]), "group 1 has the parts 0, 1"),
        (lambda h: h.update(blocks="x" * 99), "blocks"),
    ],
)
def test_headers_that_lie(good: Path, tmp_path: Path, change: Change, words: str) -> None:
    with pytest.raises(UserError) as caught:
        program_file.load(with_header(good, tmp_path / "p.mtia", change))
    assert words in str(caught.value) and "p.mtia" in str(caught.value)


def test_a_header_that_unpacks_to_far_more_is_not_read(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.mtia", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", " " * (1 << 25))
    with pytest.raises(
        UserError, match=r"header.json grows from \d+ to 33554432 bytes; right: at most 200 times"
    ):
        program_file.load(tmp_path / "p.mtia")


def test_a_file_of_the_version_before_is_refused(good: Path, tmp_path: Path) -> None:
    """Its chip does not say at which clock its numbers hold."""
    with pytest.raises(UserError, match=r"of version 4, this is version 6 \(right: 6\); compile it again"):
        program_file.load(with_header(good, tmp_path / "p.mtia", lambda h: h.update(version=4)))


def test_groups_of_work_survive_a_file(tmp_path: Path) -> None:
    program = api.compile_model("zoo:llama-tiny", dims={"seq": 16})
    program_file.save(program, tmp_path / "p.mtia")
    found = program_file.load(tmp_path / "p.mtia")
    assert (found.works, found.groups) == (program.works, program.groups) and len(found.groups) > 2


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("op", 200, "unknown opcode"),
        ("pe", -1, "no such PE"),
        ("pe", 9999, "no such PE"),
        ("operand", 99, "no such operand"),
        ("row", 1 << 30, "the tile leaves its operand"),
        ("col", -4, "the tile leaves its operand"),
        ("rows", 0, "a tile has at least one row and column"),
        ("dst", 500, "dst names"),
        ("stage", -7, "no such stage slot"),
    ],
)
def test_commands_that_reach_out(good: Path, tmp_path: Path, field: str, value: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        program_file.load(
            with_commands(good, tmp_path / "p.mtia", 0, lambda c: c[field].__setitem__(slice(0, 1), value))
        )
    assert "command 0" in str(caught.value)


def test_members_of_another_size(good: Path, tmp_path: Path) -> None:
    cut = rewritten(good, tmp_path / "p.mtia", lambda name, data: data[:-4] if name == "const0" else data)
    with pytest.raises(UserError, match=r"weight .* takes .* bytes, the file has"):
        program_file.load(cut)


def test_a_zip_bomb(good: Path, tmp_path: Path) -> None:
    def bomb(name: str, data: bytes) -> bytes:
        return bytes(1 << 27) if name in ("header.json", "block0") else data

    with pytest.raises(UserError, match=r"header\.json has 134217728 bytes, not 67108864"):
        program_file.load(rewritten(good, tmp_path / "p.mtia", bomb))
    with pytest.raises(UserError, match="block0 has 134217728 bytes"):
        program_file.load(
            rewritten(good, tmp_path / "p.mtia", lambda n, d: bomb(n, d) if n == "block0" else d)
        )


def test_sizes_that_the_directory_claims(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"const0"))
    (tmp_path / "p.mtia").write_bytes(data[: at + 24] + struct.pack("<I", 0xFFFFFF00) + data[at + 28 :])
    with pytest.raises(UserError, match="the file has 4294967040"):
        program_file.load(tmp_path / "p.mtia")


def test_a_weight_that_rots_after_loading(good: Path, tmp_path: Path, inputs: Path) -> None:
    path = rewritten(good, tmp_path / "p.mtia", lambda _, data: data)
    program = program_file.load(path)
    path.write_bytes(path.read_bytes()[:2000])
    with np.load(inputs) as arrays, pytest.raises(UserError, match="cannot be read"):
        api.run(program, inputs=dict(arrays), gpu=None)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a header."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [leaf for key, x in items for leaf in leaves(x, (*path, key))]


VALUES: list[Any] = [
    0, -1, 1, 1 << 31, 1 << 61, 1 << 70, 1.5, "", "x", "\ud800", None, [], {}, [[]], True, "fp32",
    "bool", "uint8", "fp16[8]", "fp16[]", "dram", "sram", "scratch", 1e308,
]  # fmt: skip


def mutated(header: dict[str, Any], rng: random.Random) -> None:
    """Change some values of a header."""
    for path in rng.sample(leaves(header), rng.choice([1, 1, 3])):
        place: Any = header
        try:
            for key in path[:-1]:
                place = place[key]
            old = place[path[-1]]
            number = isinstance(old, int) and rng.random() < 0.5
            place[path[-1]] = old + rng.choice([-1, 1, 64, -64]) if number else rng.choice(VALUES)
        except (KeyError, IndexError, TypeError):  # an earlier change took its place away
            continue


@pytest.mark.parametrize("kind", ["header", "command", "bytes"])
def test_mutated_programs(cli: Cli, good: Path, inputs: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.mtia"
    for seed in range(40):
        rng = random.Random(f"{kind}{seed}")
        if kind == "header":
            with_header(good, path, lambda h, rng=rng: mutated(h, rng))
        elif kind == "command":
            with_commands(good, path, rng.randrange(8), lambda c, rng=rng: scrambled(c, rng))
        else:
            data = bytearray(good.read_bytes())
            size = len(data)
            for _ in range(rng.choice([1, 4])):
                at = rng.choice([rng.randrange(size), rng.randrange(2000), size - 1 - rng.randrange(2000)])
                data[at] = rng.randrange(256)
            path.write_bytes(data)
        given = ["--inputs", inputs]
        extra = rng.choice([[], given, given, ["--chip", "tiny"], ["--set", "grid.rows=4"]])
        assert cli("run", path, "--json", "-", *extra).exit_code in CODES


def scrambled(commands: Any, rng: random.Random) -> None:
    """Change a field of some commands."""
    for _ in range(rng.choice([1, 3])):
        at, name = rng.randrange(len(commands)), rng.choice(COMMAND.names)
        if name == "imm":
            commands[name][at] = rng.choice([np.nan, np.inf, 1e38])
        else:
            info = np.iinfo(commands.dtype[name])
            commands[name][at] = rng.choice([0, 1, 2, info.max, info.min, rng.randrange(64)])
