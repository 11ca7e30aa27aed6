"""Blocks known from disk: programs, reports and refusals are those without; commands are made when read."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse
from mtia_emu.kernels.builder import NoRoom, TooLarge, at_most

from mtia_emu import api, settings
from mtia_emu.engine import launches
from mtia_emu.engine.launches import costs, untimed_costs
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.files import disk_cache
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.options import Options
from mtia_emu.program.deferred import Deferred
from mtia_emu.program.isa import Block, Program
from mtia_emu.program.text import dump
from mtia_emu.reuse.memo import Memo, noted, unmemoised
from mtia_emu.reuse.records import Records
from mtia_emu.study import tuning as tuning_module
from mtia_emu.study.known_blocks import KnownBlocks
from mtia_emu.study.tuning import tuning

MODELS = {
    "zoo:llama-tiny": {"batch": 1, "seq": 24},
    "zoo:mixture-tiny": {"batch": 1, "seq": 8},
    "zoo:dlrm-small": {"batch": 24},
}
PRODUCT = parse(
    """graph small {
  in %x : fp16[24,32]
  const %w : fp16[32,16] = absent
  %y : fp16[24,16] = matmul(%x, %w)
  out %y
}"""
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test records of its own."""
    monkeypatch.setenv(settings.BLOCKS.name, "1")
    for module in (tuning_module, launches):
        monkeypatch.setattr(module, "records", lambda: Records(tmp_path) if settings.BLOCKS.on() else None)
    return tmp_path


def late(program: Program) -> list[Deferred]:
    return [block for block in program.blocks if isinstance(block, Deferred)]


def text(program: Program) -> str:
    return dump(program, commands=1 << 20)


def unmade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody read commands of deferred blocks."""

    def refused(self: Deferred) -> Block:
        raise AssertionError(f"commands of {self.kernel} are read")

    monkeypatch.setattr(Deferred, "whole", property(refused))


@pytest.mark.parametrize(("model", "dims"), MODELS.items(), ids=list(MODELS))
def test_programs_and_reports_are_those_without(
    model: str, dims: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = load_chip("tiny")
    monkeypatch.setenv(settings.BLOCKS.name, "0")
    plain = api.compile_model(model, chip, dims=dims)
    assert late(plain) == []
    expected = text(plain), report(plain, chip)
    monkeypatch.setenv(settings.BLOCKS.name, "1")
    for _ in range(2):
        found = api.compile_model(model, chip, dims=dims)
        assert late(found)
        each = untimed_costs(found, chip)
        assert (text(found), report(found, chip, each=each)) == expected
        assert [x.untimed().cycles for x in costs(found, chip)] == [x.cycles for x in each]
    with monkeypatch.context() as patch:
        unmade(patch)
        again = api.compile_model(model, chip, dims=dims)
        assert report(again, chip, each=untimed_costs(again, chip)) == expected[1]
    faster = load_chip("tiny", {"clock_hz": 2e9})  # another chip: nothing of it is known
    assert report(again, faster, each=untimed_costs(again, faster)) == report(plain, faster)


def test_heads_and_copies_are_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dims = "zoo:llama-3-8b", {"seq": 1, "past": 128}
    first = api.compile_model(model, dims=dims)
    assert any("are read into SRAM" in note for note in first.notes)
    with monkeypatch.context() as patch:
        unmade(patch)
        again = api.compile_model(model, dims=dims)
    assert len(late(again)) == len(again.blocks) == len(first.blocks)
    assert [x.known for x in late(again)] == [x.known for x in late(first)]
    assert all(x.whole.size == x.size for x in late(again)[:4])


def forged(folder: Path, old: str, new: str) -> int:
    """Change what files of the cache say, as somebody would who can write them; return how many were."""
    count = 0
    for file in folder.iterdir():
        data = disk_cache.read(file, 1 << 20)
        assert data is not None
        if old in data.decode():
            disk_cache.write(file, data.decode().replace(old, new, 1).encode())
            count += 1
    return count


def test_what_is_not_so_is_refused_when_commands_are_made_and_then_forgotten(folder: Path) -> None:
    make = partial(api.compile_model, "zoo:llama-tiny", "tiny", dims=MODELS["zoo:llama-tiny"], beside=False)
    right = text(make())
    (one, *_) = [x for x in late(make()) if x.kernel == "matmul"]
    content = one.known.content
    assert forged(folder, content, "0" * len(content)) >= 1
    with pytest.raises(UserError, match="is not so, and is forgotten now"):
        for _ in range(9):
            text(make())
    while True:  # each block that was forged is refused once
        try:
            assert text(make()) == right
            break
        except UserError:
            continue


def test_files_of_any_form_change_nothing(folder: Path) -> None:
    make = partial(api.compile_model, "zoo:llama-tiny", "tiny", dims=MODELS["zoo:llama-tiny"])
    right = text(make())
    for nonsense in ([], {}, 3, [[]], [["matmul"], ""], "x", [None, 1]):
        for file in folder.iterdir():
            disk_cache.write(file, json.dumps(nonsense).encode())
        program = make()
        assert text(program) == right
        assert report(program, load_chip("tiny"), each=untimed_costs(program, load_chip("tiny"))).cycles > 0


def test_what_has_no_room_is_known_to_have_none(folder: Path) -> None:
    asked, kept = [], KnownBlocks(Records(folder), unmemoised, ())

    def work(chip: Chip) -> Any:
        asked.append(chip)
        raise NoRoom("too small")

    for _ in range(2):
        with pytest.raises(NoRoom, match="too small"):
            kept("block", ("matmul", 1), load_chip("tiny"), work)
    assert len(asked) == 1
    with pytest.raises(NoRoom):
        kept("block", ("user", 1), load_chip("tiny"), work)  # somebody's own kernel may change by itself
    with pytest.raises(NoRoom):
        kept("block", ("matmul", 1), noted(load_chip("tiny"), set()), work)
    assert len(asked) == 3


def test_a_block_of_more_commands_than_may_be_is_refused_as_without(folder: Path) -> None:
    (block,) = api.compile_model("zoo:llama-tiny", "tiny", dims=MODELS["zoo:llama-tiny"]).blocks[:1]
    kept, key, chip = KnownBlocks(Records(folder), unmemoised, ()), ("matmul", 1), load_chip("tiny")
    assert kept("block", key, chip, lambda _: replace(block)).size == block.size

    with at_most(block.size):
        assert kept("block", key, chip, lambda _: pytest.fail("it is known")).size == block.size
    asked = []

    def refused(_: Chip) -> Any:
        asked.append(1)
        raise TooLarge("too many")

    for most in (block.size - 1, block.size - 1, block.size - 2):
        with at_most(most), pytest.raises(TooLarge, match="too many"):
            kept("block", key, chip, refused)
    assert len(asked) == 1  # known to be too large for so many, and for fewer
    assert kept("block", key, chip, lambda _: replace(block)).size == block.size


def test_where_work_is_kept_in_memory_or_nothing_is_kept_blocks_are_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chip, options = load_chip("tiny"), Options()
    for how in (tuning(options, memoise=Memo()), tuning(options, cached=False)):
        assert late(compile_graph(PRODUCT, chip, options=options, tuning=how).program) == []
    monkeypatch.setenv(settings.TUNE_CACHE.name, "0")
    assert late(compile_graph(PRODUCT, chip, options=options, tuning=tuning(options)).program) == []
