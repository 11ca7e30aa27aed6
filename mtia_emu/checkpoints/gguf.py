"""GGUF files, as llama.cpp reads them: what a header says, and where values lie; nothing of it is trusted.

A file is `GGUF`, a version, how many tensors and keys there are, the keys with their values, each tensor's
name, sizes (the innermost first), type and place, and then the data. Of a header only what is looked up is
kept: a vocabulary is stepped over. Source: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from .blocks import BLOCKS, unpacked

SUFFIX = ".gguf"
RIGHT = "a GGUF file of version 2 or 3"
MAX_KEYS, MAX_TENSORS, MAX_TEXTS, MAX_NAME, MAX_DIMS = 1 << 14, 1 << 17, 1 << 22, 1 << 10, 4
MAX_KEPT = 1 << 12  # elements of a list that is kept; longer ones are stepped over
MAX_PARTS = 1 << 10
TEXT, LIST = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Numbers by their type's code, as `struct` spells them."""
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class PackedTensor:
    """A tensor in a file: its kind of blocks, its shape, the outermost first, and where its data begin."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        """Return the bytes that it takes."""
        elements, size = BLOCKS[self.kind]
        return math.prod(self.shape) // elements * size

    def array(self) -> np.ndarray:
        """Return its values, fp32 where they are packed; raise `UserError` for what is not there or read."""
        if self.offset + self.size_bytes > self.path.stat().st_size:
            raise UserError(
                f"{self.path}: ends before its values (right: the whole file; without --check and --inputs "
                "its header is enough)"
            )
        data = np.memmap(self.path, np.uint8, "r", self.offset, (self.size_bytes,))
        found = unpacked(data, self.kind)
        if found is None:
            raise UserError(
                f"{self.path}: values of {self.kind} are not read (without --check and --inputs only shapes "
                "are needed)"
            )
        return found.reshape(self.shape)


@dataclass(frozen=True)
class PackedModel:
    """What a file, or the parts of one, say of a model."""

    path: Path
    keys: Mapping[str, Any]
    found: Mapping[str, PackedTensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a tensor's values; raise `UserError` for one that is absent or not read."""
        tensor = self.found.get(name)
        if tensor is None:
            raise UserError(f"{self.path}: there is no tensor {name}{nearest(name, self.found)}")
        return tensor.array()


class _Reader:
    """A place in a header. Raises `ValueError` for what cannot be."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.texts = data, 0, 0

    def skip(self, count: int) -> int:
        """Go on by so many bytes; return where they began."""
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data)}, within its header")
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize("<" + code)))[0]

    def size(self, most: int, what: str) -> int:
        """Return a count that is at most `most`."""
        found = int(self.number("Q"))
        if found > most:
            raise ValueError(f"{found} {what} (right: at most {most})")
        return found

    def text(self, most: int | None = None) -> str:
        """Return a text; one longer than `most` is "" where no limit is named, and refused where one is.

        What a terminal does not print is "?".
        """
        self.texts += 1
        if self.texts > MAX_TEXTS:
            raise ValueError(f"more than {MAX_TEXTS} texts")
        length = self.size(len(self.data) if most is None else most, "bytes of a text")
        start = self.skip(length)
        if length > MAX_NAME:
            return ""
        found = self.data[start : self.at].decode("utf-8", "replace")
        return found if found.isprintable() else "".join(c if c.isprintable() else "?" for c in found)

    def value(self, deep: bool = False) -> Any:
        """Return a value; None for a list that is not kept."""
        kind = int(self.number("I"))
        if kind == TEXT:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != LIST or deep:
            raise ValueError(f"a value of type {kind} (right: 0 to 12, and no list of lists)")
        return self._list()

    def _list(self) -> Any:
        kind, count = int(self.number("I")), int(self.number("Q"))
        if kind == TEXT:
            for _ in range(min(count, MAX_TEXTS + 1)):
                self.text()
            return None
        if kind not in NUMBERS:
            raise ValueError(f"a list of type {kind} (right: numbers or texts)")
        code = NUMBERS[kind]
        start = self.skip(count * struct.calcsize("<" + code))
        return list(struct.unpack_from(f"<{count}{code}", self.data, start)) if count <= MAX_KEPT else None


def read_gguf(path: Path) -> PackedModel:
    """Return what a file's header says, with the tensors of all parts of a model in several files.

    Raises `UserError` for a file that is no GGUF file, and for parts that are not there.
    """
    first = _read_one(path)
    parts = first.keys.get("split.count", 1)
    if not isinstance(parts, int) or not 0 <= parts <= MAX_PARTS:
        raise UserError(f"{path}: split.count is {str(parts)[:20]} (right: at most {MAX_PARTS})")
    named, found = PART.fullmatch(path.name), dict(first.found)
    if parts > 1 and (named is None or int(named[2]) != 1):
        raise UserError(f"{path}: is a part of {parts} (right: NAME-00001-of-{parts:05d}{SUFFIX})")
    for number in range(2, parts + 1):
        assert named is not None
        found |= _read_one(path.with_name(f"{named[1]}-{number:05d}-of-{parts:05d}{SUFFIX}")).found
    return PackedModel(path, first.keys, found)


def _read_one(path: Path) -> PackedModel:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parsed(path, _Reader(data))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror} (right: {RIGHT})") from None
    except ValueError as error:  # an empty file cannot be mapped
        raise UserError(f"{path}: not a GGUF file: {error} (right: {RIGHT})") from None


def _parsed(path: Path, reader: _Reader) -> PackedModel:
    """Return what a header says; only names, and values that are short, are kept."""
    start = reader.skip(4)
    if reader.data[start : reader.at] != b"GGUF":
        raise ValueError("it does not begin with 'GGUF'")
    version = int(reader.number("I"))
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    tensors, keys = reader.size(MAX_TENSORS, "tensors"), reader.size(MAX_KEYS, "keys")
    values: dict[str, Any] = {}
    for _ in range(keys):
        name = reader.text(MAX_NAME)
        if name in values:
            raise ValueError(f"the key {name[:60]} stands twice")
        values[name] = reader.value()
    infos: dict[str, tuple[tuple[int, ...], str, int]] = {}
    for _ in range(tensors):
        name = reader.text(MAX_NAME)
        if name in infos:
            raise ValueError(f"the tensor {name[:60]} stands twice")
        infos[name] = _placed(reader, name)
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or not 1 <= align <= 1 << 16:
        raise ValueError(f"general.alignment is {str(align)[:20]} (right: 1 to 65536)")
    begin = -(-reader.at // align) * align
    found = {n: PackedTensor(path, kind, shape, begin + at) for n, (shape, kind, at) in infos.items()}
    return PackedModel(path, values, found)


def _placed(reader: _Reader, name: str) -> tuple[tuple[int, ...], str, int]:
    """Return a tensor's shape, the outermost first, its kind of blocks and its place in the data."""
    dims = int(reader.number("I"))
    if not 1 <= dims <= MAX_DIMS:
        raise ValueError(f"{name[:60]} has {dims} dimensions (right: 1 to {MAX_DIMS})")
    sizes = [reader.size(1 << 40, f"elements along {name[:60]}") for _ in range(dims)]
    code, offset = int(reader.number("I")), reader.size(1 << 60, f"bytes before {name[:60]}")
    kind = KINDS.get(code)
    if kind is None:
        raise ValueError(f"{name[:60]} is of type {code}, which is not known")
    if not all(sizes) or math.prod(sizes) > 1 << 56 or sizes[0] % BLOCKS[kind][0]:
        raise ValueError(f"{name[:60]} of {sizes} is not made of {kind}'s blocks of {BLOCKS[kind][0]}")
    return tuple(reversed(sizes)), kind, offset


def packed_notes(model: PackedModel) -> tuple[str, ...]:
    """Return that most of the weights are of fewer bits than 16, where they are."""
    by_kind: Counter[str] = Counter()
    for tensor in model.found.values():
        by_kind[tensor.kind] += tensor.size_bytes if len(tensor.shape) > 1 else 0
    if not by_kind:
        return ()
    kind, size_bytes = by_kind.most_common(1)[0]
    elements, size = BLOCKS[kind]
    bits, whole = 8 * size / elements, sum(by_kind.values())
    if bits >= 16:
        return ()
    dtype = "int8" if bits > 6 else "int4"
    return (
        f"{100 * size_bytes / whole:.0f} % of the file's weights are {kind}, {bits:.3g} bits each, "
        f"{whole / 1e9:.3g} GB in all; timed as fp16 unless --dtype says otherwise (near it: {dtype})",
    )


_NAMES = (
    "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S "
    "IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4"
)
KINDS = {code: name for code, name in enumerate(_NAMES.split()) if name in BLOCKS}
"""The kind of blocks of each type's code. Source: ggml.h, enum ggml_type."""
