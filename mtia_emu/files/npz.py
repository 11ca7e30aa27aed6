"""Arrays by name: .npz files, read without unpickling and within bounds."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import settings
from ..errors import UserError
from .writing import write_atomic

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
    """Read one array of any shape; its header must claim what the file holds, no more and no less."""
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
