"""Arrays in .npz files: read without unpickling and within bounds, written whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from . import settings
from .errors import UserError
from .view.files import write_atomic

Array = np.ndarray[Any, Any]


def read_npz(path: str) -> dict[str, Array]:
    """Return the arrays of an .npz file by key.

    Raises `UserError` for files that are not .npz, for pickled objects, and for more bytes than `settings.MEMORY`.
    """
    limit = settings.integer(settings.MEMORY)
    try:
        with zipfile.ZipFile(path) as file:
            claimed = sum(info.file_size for info in file.infolist())
            if claimed > limit:
                raise UserError(f"{path}: holds {claimed} bytes, at most {limit} are read; set {settings.MEMORY.name} higher")
            return {_key(info.filename): _member(file, info) for info in file.infolist()}
    except UserError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, SyntaxError, RuntimeError) as error:
        raise UserError(f"{path}: not an .npz file of arrays: {error} (right: numpy.savez)") from None


def _key(name: str) -> str:
    return name.removesuffix(".npy")


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read one array; its header must claim no more than the file holds."""
    with file.open(info) as stream:
        version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)  # type: ignore[arg-type]
        claimed = int(np.prod([float(n) for n in shape])) * dtype.itemsize if shape else dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        if claimed > info.file_size:
            raise ValueError(f"{info.filename} claims {claimed} bytes, the file holds {info.file_size}")
    with file.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def write_npz(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays by key to an .npz file."""

    def write(file: IO[bytes]) -> None:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]

    write_atomic(path, write)
