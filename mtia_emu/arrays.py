"""Arrays by name: .npz files, read without unpickling and within bounds, and a model's inputs."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import settings
from .errors import UserError, refuse_unknown
from .isa import Binding
from .types import DTYPES
from .view.files import write_atomic

Array = np.ndarray[Any, Any]
BROKEN_ZIP = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
BROKEN_HEADER = (SyntaxError, tokenize.TokenError, TypeError, MemoryError, RecursionError, OverflowError)
MAX_RANK = 64
_NUMBERS = {t.numpy for t in DTYPES.values()}


def read_npz(path: str) -> dict[str, Array]:
    """Return the arrays of an .npz file by key.

    Raises `UserError` for files that are not .npz, for pickled objects, and for more bytes than
    `settings.MEMORY`.
    """
    limit = settings.integer(settings.MEMORY)
    if not Path(path).is_file():  # opening a pipe would wait for its writer
        raise UserError(f"{path}: not an .npz file: there is no such file (right: numpy.savez)")
    try:
        with zipfile.ZipFile(path) as file:
            claimed = sum(info.file_size for info in file.infolist())
            if claimed > limit:
                raise UserError(
                    f"{path}: holds {claimed} bytes, at most {limit} are read; "
                    f"set {settings.MEMORY.name} higher"
                )
            arrays: dict[str, Array] = {}
            for info in file.infolist():
                key = info.filename.removesuffix(".npy")
                if key in arrays:
                    raise ValueError(f"two arrays are called {key!r}")
                arrays[key] = _member(file, info)
            return arrays
    except UserError:
        raise
    except (*BROKEN_ZIP, *BROKEN_HEADER) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: not an .npz file of arrays: {reason} (right: numpy.savez)") from None


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read one array; its header must claim what the file holds, no more and no less."""
    with file.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_column, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        if dtype.names is not None or dtype.kind not in "biufV" or (dtype.kind == "V" and dtype.subdtype):
            raise ValueError(f"{info.filename} holds {dtype}, not numbers")
        if any(n < 0 for n in shape) or len(shape) > MAX_RANK:
            raise ValueError(f"{info.filename} has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > info.file_size:
            raise ValueError(f"{info.filename} claims {claimed} bytes, the file holds {info.file_size}")
        data = stream.read(claimed)
        if len(data) != claimed or stream.read(1):
            raise ValueError(f"{info.filename} does not hold the {claimed} bytes that it claims")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C")


def write_npz(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays by key to an .npz file, the same bytes for the same arrays."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as out:
            for name, array in arrays.items():
                with out.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    write_atomic(path, write)


def input_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays by input name, from keys `name` or `in:name`; outputs stored beside them are left out."""
    out: dict[str, Array] = {}
    for key, array in arrays.items():
        if key.startswith("out:"):
            continue
        name = key.removeprefix("in:")
        if name in out:
            raise UserError(f"input '{name}' is given twice, as '{name}' and as 'in:{name}' (right: once)")
        out[name] = np.asarray(array)
    return out


def read_inputs(path: str | None) -> dict[str, Array] | None:
    """Return the arrays of an .npz file by input name; None where no file is named."""
    return input_arrays(read_npz(path)) if path else None


def typed_inputs(arrays: Mapping[str, Array], inputs: Sequence[Binding]) -> dict[str, Array]:
    """Return an array for each input, in the model's own type.

    Raises `UserError` for inputs that are missing, unknown or of another shape, and for values that the
    input's type cannot hold: fractions for an integer, 300 for an int8.
    """
    names = [b.name for b in inputs]
    for name in arrays:
        if name not in names:
            raise refuse_unknown("input", name, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"no array for input {', '.join(map(repr, missing))} (given: {', '.join(arrays) or 'none'})"
        )
    return {b.name: _typed(b, np.asarray(arrays[b.name])) for b in inputs}


def _typed(binding: Binding, array: Array) -> Array:
    want = binding.model_type
    given = f"input '{binding.name}' is given as {array.dtype}{list(array.shape)}"
    if array.shape != want.shape:
        raise UserError(f"{given}; the model takes {want}")
    to = want.dtype.numpy
    if array.dtype == to:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == to.itemsize and to.isbuiltin != 1:
        return array.view(to)  # NumPy's own files forget the name of types such as bfloat16
    if array.dtype not in _NUMBERS:
        raise UserError(f"{given}; the model takes {want}")
    with np.errstate(all="ignore"):
        out = array.astype(to)
        kept = want.dtype.is_float or bool((out.astype(np.float64) == array.astype(np.float64)).all())
    if not kept:
        raise UserError(f"{given}, with values that {want.dtype} cannot hold")
    return out
