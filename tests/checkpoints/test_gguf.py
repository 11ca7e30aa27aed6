"""A GGUF header is hostile: what is wrong with one is said, and little memory is taken."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import STORED, header_keys, header_tensors, save_gguf, text, value_bytes

from mtia_emu import api
from mtia_emu.checkpoints import open_checkpoint
from mtia_emu.checkpoints.gguf import MAX_TEXTS, read_gguf
from mtia_emu.errors import UserError

WHOLE = STORED["whole"].tobytes()


def header(keys: int = 0, tensors: int = 0, *rest: bytes, version: int = 3) -> bytes:
    """Return the beginning of a file, and what else is said to follow."""
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys) + b"".join(rest)


def tensor(dims: list[int], kind: int = 0, offset: int = 0, name: str = "t") -> bytes:
    """Return what a header says of a tensor."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def test_what_gguf_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WHOLE)
    found = read_gguf(path)
    assert found.keys["general.architecture"] == "llama" and found.keys["llama.vocab_size"] == 96
    assert found.keys["tokenizer.ggml.tokens"] is None  # stepped over
    assert len(found.found) == 21 and found.found["token_embd.weight"].shape == (96, 64)
    last = max(found.found.values(), key=lambda t: t.offset)
    assert last.offset + last.size_bytes == -(-len(WHOLE) // 32) * 32 or last.kind == "F32"


HUGE = (1 << 64) - 1
WRONG: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b"GGUF", "ends at byte 4"),
    (b"PK\3\4" * 9, "begin with 'GGUF'"),
    (header(version=1), "version 1"),
    (header(version=1 << 24), "version"),
    (header(HUGE), "keys"),
    (header(0, HUGE), "tensors"),
    (header(1, 0, struct.pack("<Q", HUGE)), "bytes of a text"),
    (header(1, 0, text("a"), struct.pack("<I", 13)), "type 13"),
    (header(1, 0, text("a"), struct.pack("<IQ", 8, HUGE)), "bytes of a text"),
    (header(1, 0, text("a"), struct.pack("<IIQ", 9, 4, 1 << 60)), "within its header"),
    (header(1, 0, text("a"), struct.pack("<IIQ", 9, 8, HUGE)), "within its header"),
    (header(1, 0, text("a"), struct.pack("<IIQ", 9, 9, 1)), "type 9"),
    (header(2, 0, text("a"), value_bytes(1), text("a"), value_bytes(1)), "stands twice"),
    (header(0, 2, tensor([4]), tensor([4])), "stands twice"),
    (header(0, 1, tensor([])), "0 dimensions"),
    (header(0, 1, tensor([1, 1, 1, 1, 1])), "5 dimensions"),
    (header(0, 1, tensor([0])), "blocks of 1"),
    (header(0, 1, tensor([1 << 39, 1 << 39])), "blocks of 1"),
    (header(0, 1, tensor([HUGE])), "elements along t"),
    (header(0, 1, tensor([], name="a\nb\x1b[2J")), r"a\?b\?\[2J has 0 dimensions"),
    (header(0, 1, tensor([33], 8)), "Q8_0's blocks of 32"),
    (header(0, 1, tensor([4], 36)), "type 36"),
    (header(0, 1, tensor([4], 0, HUGE)), "bytes before t"),
    (header(1, 0, text("general.alignment"), value_bytes(0)), "general.alignment"),
    (header(1, 0, text("general.alignment"), value_bytes("big")), "general.alignment"),
    (header(1, 0, text("split.count"), value_bytes(1 << 30)), "split.count"),
    (header(1, 0, text("split.count"), value_bytes(2)), "a part of 2"),
]


@pytest.mark.parametrize(("data", "said"), WRONG)
def test_what_is_wrong_is_said(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said) as error:
        open_checkpoint(str(path), {})
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_vocabulary_takes_no_memory_and_an_endless_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    tokens = struct.pack("<IIQ", 9, 8, 1 << 17) + (text("a token of some length") * (1 << 17))
    path.write_bytes(header(1, 0, text("tokenizer.ggml.tokens"), tokens))
    tracemalloc.start()
    read_gguf(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    count = MAX_TEXTS + 1
    path.write_bytes(header(1, 0, text("a"), struct.pack("<IIQ", 9, 8, count) + bytes(8 * count)))
    with pytest.raises(UserError, match="texts"):
        read_gguf(path)


@settings(max_examples=150)
@given(at=st.integers(0, 2500), junk=st.binary(min_size=1, max_size=8), end=st.integers(20, len(WHOLE)))
def test_any_bytes_are_a_model_or_an_error_of_the_users(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, end: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "odd.gguf"
    path.write_bytes((WHOLE[:at] + junk + WHOLE[at + len(junk) :])[:end])
    try:
        found = open_checkpoint(str(path), {"seq": 2})
        found.model.graph("any", found.dims)
        found.build(path.parent, 0)
    except UserError as error:
        assert "\n" not in str(error)


def parts(folder: Path, count: int) -> Path:
    """Write a model in so many files, the first of which has no tensors; return the first."""
    keys, tensors = header_keys("llama") | {"split.count": count}, header_tensors("llama")
    first = save_gguf(folder / f"m-00001-of-{count:05d}.gguf", keys, {})
    for number in range(2, count + 1):
        mine = {k: v for i, (k, v) in enumerate(tensors.items()) if i % (count - 1) == number - 2}
        save_gguf(folder / f"m-{number:05d}-of-{count:05d}.gguf", {"split.no": number - 1}, mine)
    return first


def test_a_model_in_several_files_is_one(tmp_path: Path) -> None:
    found = open_checkpoint(str(parts(tmp_path, 3)), {})
    assert found.packed is not None and set(found.packed.found) == set(header_tensors("llama"))
    right = header_tensors("llama")["token_embd.weight"]
    np.testing.assert_array_equal(found.packed["token_embd.weight"], right)
    with pytest.raises(UserError, match="right: NAME-00001-of-00003"):
        open_checkpoint(str(_second(tmp_path)), {})
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(UserError, match=r"m-00003-of-00003\.gguf: cannot be read"):
        open_checkpoint(str(tmp_path / "m-00001-of-00003.gguf"), {})


def _second(folder: Path) -> Path:
    return save_gguf(folder / "n-00002-of-00003.gguf", header_keys("llama") | {"split.count": 3}, {})


def test_a_folder_of_such_files_says_how_to_name_one(tmp_path: Path) -> None:
    path = save_gguf(tmp_path / "a.gguf", header_keys("llama"), header_tensors("llama"))
    with pytest.raises(UserError, match=r"did you mean 'hf:.*a\.gguf'"):
        open_checkpoint(str(tmp_path), {})
    with pytest.raises(UserError, match=r"is a checkpoint .right: hf:.*a\.gguf"):
        api.run(str(path))


def test_values_of_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(header(0, 1, tensor([256], 19)) + bytes(4096))
    with pytest.raises(UserError, match="values of IQ1_S are not read"):
        read_gguf(path)["t"]


ODD: list[tuple[dict[str, Any], str]] = [
    ({"general.architecture": "mamba"}, "unknown architecture 'mamba'.*known: .*qwen3"),
    ({"llama.block_count": 0}, "num_hidden_layers"),
    ({"llama.attention.head_count": 0}, "num_attention_heads"),
    ({"llama.attention.head_count_kv": [2, 4]}, "head_count_kv differs by layer"),
    ({"llama.rope.scaling.type": "odd"}, "odd"),
    ({"llama.rope.dimension_count": 3}, "turned part"),
    ({"llama.expert_count": 4, "llama.expert_used_count": 9}, "9 of 4 experts"),
]


@pytest.mark.parametrize(("changes", "said"), ODD)
def test_keys_that_make_no_model_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = save_gguf(tmp_path / "odd.gguf", header_keys("llama") | changes, header_tensors("llama"))
    with pytest.raises(UserError, match=said):
        open_checkpoint(str(path), {})


def test_sizes_of_a_list_that_are_one_are_that(tmp_path: Path) -> None:
    keys = header_keys("llama") | {"llama.attention.head_count_kv": [2, 2]}
    assert (
        open_checkpoint(str(save_gguf(tmp_path / "a.gguf", keys, header_tensors("llama"))), {}).model.kv_heads
        == 2
    )


def test_factors_of_frequencies_are_read_of_the_file(tmp_path: Path) -> None:
    """Llama 3.1's stretching is a tensor of divisors; a file that ends before it is timed without."""
    factors = np.linspace(1, 8, 8).astype(np.float32)
    path = save_gguf(
        tmp_path / "a.gguf", header_keys("llama"), header_tensors("llama") | {"rope_freqs.weight": factors}
    )
    model, plain = open_checkpoint(str(path), {}).model, 10000.0 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(model.frequencies(5), plain / factors, rtol=1e-6)
    path.write_bytes(path.read_bytes()[:-64])
    np.testing.assert_allclose(open_checkpoint(str(path), {}).model.frequencies(5), plain, rtol=1e-6)
