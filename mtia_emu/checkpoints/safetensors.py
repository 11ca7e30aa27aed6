"""Safetensors files, read without trusting them: the header at once, values tensor by tensor when asked for.

A file is the length of its header (uint64, little endian), the header (JSON: for each tensor its type, shape
and place), and the data. A large checkpoint is several files, and an index that says which holds what.
Source: github.com/huggingface/safetensors, README.md.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import ml_dtypes
import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ..errors import UserError, nearest
from ..files.json_file import once, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER, MAX_INDEX, MAX_TENSORS, MAX_FILES = 1 << 25, 1 << 25, 1 << 18, 4096
OTHERS = ("model*.safetensors", "pytorch_model*.bin")  # what holds values where neither is there
MAX_SIZE = 1 << 56  # elements of a tensor
TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")

Place = Annotated[int, Field(ge=0, le=1 << 60, strict=True)]


class Entry(BaseModel):
    """What a header says of a tensor."""

    dtype: Literal[tuple(TYPES)]  # type: ignore[valid-type]
    shape: Annotated[list[Place], Field(max_length=16)]
    data_offsets: Annotated[list[Place], Field(min_length=2, max_length=2)]


ENTRIES = TypeAdapter(dict[str, Entry])


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its type by the file's name for it, its shape, and where its data begin."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def array(self) -> np.ndarray:
        """Return its values, read from the file as they are looked at."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, TYPES[self.dtype])
        return np.memmap(self.path, TYPES[self.dtype], "r", self.offset, self.shape)


@dataclass(frozen=True)
class CheckpointTensors:
    """The tensors of a checkpoint's folder, by name."""

    folder: Path
    found: dict[str, Tensor]

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a tensor's values; raise `UserError` for one that is absent, or not of floating point."""
        tensor = self.found.get(name)
        if tensor is None:
            raise UserError(f"{self.folder}: there is no tensor {name}{nearest(name, self.found)}")
        if tensor.dtype not in FLOATS:
            raise UserError(
                f"{tensor.path}: {name} is packed as {tensor.dtype}, whose values are not read (right: "
                f"{', '.join(FLOATS)}; without --check and --inputs only shapes are needed)"
            )
        return tensor.array()


def has_tensors(folder: Path) -> bool:
    """Return whether a folder holds values, and not only a config."""
    return any((folder / name).is_file() for name in (SINGLE, INDEX))


def refuse_others(folder: Path) -> None:
    """Raise `UserError` for a folder whose values are all in files that are not read."""
    found = sorted(file.name for kind in OTHERS for file in folder.glob(kind))
    if found and not has_tensors(folder):
        raise UserError(
            f"{folder}: its weights, {found[0][:80]}, are not read (right: {SINGLE}, or {INDEX} and its "
            "files; leave out --check and --inputs to only time it)"
        )


def open_tensors(folder: Path) -> CheckpointTensors:
    """Return the tensors of a folder; only headers are read. Raises `UserError` for what is inconsistent."""
    if not (folder / INDEX).is_file():
        return CheckpointTensors(folder, headers(_inside(folder, SINGLE)))
    index = read_json(folder / INDEX, "an index of safetensors", MAX_INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{folder / INDEX}: no 'weight_map' of names to files")
    files = sorted(set(places.values()))
    if len(files) > MAX_FILES:
        raise UserError(f"{folder / INDEX}: names {len(files)} files (right: at most {MAX_FILES})")
    each: dict[str, dict[str, Tensor]] = {}
    for file in files:
        each[file] = headers(_inside(folder, file))
        if sum(map(len, each.values())) > MAX_TENSORS:
            raise UserError(f"{folder / INDEX}: more than {MAX_TENSORS} tensors in all")
    found = {name: each[file][name] for name, file in places.items() if name in each[file]}
    lost = next((name for name in places if name not in found), None)
    if lost is not None:
        raise UserError(f"{folder / INDEX}: {lost} is not in {places[lost]}, which should hold it")
    return CheckpointTensors(folder, found)


def _inside(folder: Path, name: str) -> Path:
    """Return a file of a folder; a link may lead only to where the hub's cache keeps a checkpoint's files."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"{folder}: {name[:80]!r} is no name of a file in it")
    real, home = (folder / name).resolve(), folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if real.parent not in (home, cache):
        raise UserError(f"{folder / name}: leads out of its folder, to {real}")
    if not real.is_file():
        raise UserError(f"{folder / name}: is missing")
    return real


def headers(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name. Raises `UserError` for a file that is no safetensors file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise UserError(
                f"{path}: not a safetensors file: a header of {length} bytes in a file of {size} (right: at "
                f"most {MAX_HEADER} bytes)"
            )
        text = file.read(length)
    try:
        values = json.loads(text, object_pairs_hook=once)
        if len(values) > MAX_TENSORS:
            raise ValueError(f"{len(values)} tensors (right: at most {MAX_TENSORS})")
        entries = ENTRIES.validate_python({k: v for k, v in values.items() if k != "__metadata__"})
    except (ValueError, RecursionError, AttributeError, TypeError, ValidationError) as error:
        raise UserError(f"{path}: not a safetensors header: {' '.join(str(error).split())[:200]}") from None
    return _placed(path, entries, 8 + length, size)


def _placed(path: Path, entries: dict[str, Entry], start: int, size: int) -> dict[str, Tensor]:
    """Return tensors at their places, which fill the data, as the format has it, and do not overlap."""
    out, free = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        need = math.prod(entry.shape) * np.dtype(TYPES[entry.dtype]).itemsize
        if math.prod(d for d in entry.shape if d) > MAX_SIZE or end - begin != need or start + end > size:
            raise UserError(
                f"{path}: {name[:80]} of {entry.dtype}{entry.shape} takes {need} bytes; its place is {begin} "
                f"to {end} of {size - start}"
            )
        if begin != free:
            raise UserError(f"{path}: {name[:80]} begins at byte {begin} of the data (right: {free})")
        out[name], free = Tensor(path, entry.dtype, tuple(entry.shape), start + begin), end
    if start + free != size:
        raise UserError(f"{path}: {size - start} bytes of data, of which tensors take {free}")
    return out
