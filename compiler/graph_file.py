"""Graphs on disk: text, with large constants in an .npz file of the same name beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.errors import UserError, nearest
from mtia_emu.files.npz import read_npz, write_npz
from mtia_emu.files.writing import write_atomic

from . import text
from .check import Unlawful, check
from .graph import Graph

Array = np.ndarray[Any, Any]
SUFFIX = ".ir"
MOST_BYTES = 1 << 28  # of a text: some hundred times that of Llama 3 8B


def is_graph(path: str | Path) -> bool:
    """Return whether a path is that of a graph's text."""
    return str(path).endswith(SUFFIX)


def read_graph(path: str | Path) -> Graph:
    """Return the lawful graph in a text; constants shown as a digest are read from the .npz file beside it.

    Without that file they are absent. Raises `UserError`, beginning with FILE:LINE, for text that is no
    graph and for one that is not lawful.
    """
    file = Path(path)
    body = _read(file)
    try:
        graph = text.parse(body)
        if not graph.outputs:
            raise UserError(f"graph {graph.name} has no output (right: a line 'out %NAME' before the last)")
        beside = file.with_suffix(".npz")
        if beside.is_file():
            arrays = read_npz(str(beside))
            _refuse_unknown_keys(beside, arrays, graph, body)
            graph = text.parse(body, _typed(graph, arrays))
        return check(graph)
    except text.Misread as error:
        raise UserError(f"{file}:{error.line}: {error.what}") from None
    except Unlawful as error:
        line = text.line_of(body, error.value) if error.value else None
        raise UserError(f"{file}:{line}: {error}" if line else f"{file}: {error}") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _read(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"{file}: there is no such file (right: a graph's text, FILE{SUFFIX})")
    if file.stat().st_size > MOST_BYTES:
        raise UserError(f"{file}: holds {file.stat().st_size} bytes; right: a graph of at most {MOST_BYTES}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not text: {error.reason} at byte {error.start}") from None


def _refuse_unknown_keys(beside: Path, arrays: Mapping[str, Array], graph: Graph, body: str) -> None:
    """Raise `UserError` for arrays that are no constant's where a constant that should have data has none."""
    unknown = [name for name in arrays if name not in graph.consts]
    if not unknown:
        return
    lacking = [name for name, c in graph.consts.items() if not c.present and name not in arrays]
    lines = body.splitlines()
    without = [n for n in lacking if not lines[(text.line_of(body, n) or 1) - 1].rstrip().endswith("absent")]
    if without:
        near = f" (right: {without[0]!r})" if len(without) == 1 else nearest(unknown[0], without)
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{beside} has no data for const %{without[0]}, but {unknown[0]!r}{more}, which is no const of "
            f"the graph{near}"
        )


def _typed(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays in the types of the graph's constants: .npz files know no bf16, only its bytes."""
    out = {}
    for name, array in arrays.items():
        const = graph.const(name)
        if const is None:
            continue
        kind = const.type.dtype.numpy
        raw = array.dtype.kind == "V" and array.dtype.itemsize == kind.itemsize
        out[name] = array.view(kind) if raw else array
    return out


def write_graph(path: str | Path, graph: Graph) -> list[str]:
    """Write a graph's text and, where large constants have data, the .npz beside it; return the files."""
    file = Path(path)
    large = {
        name: const.array(name)
        for name, const in graph.consts.items()
        if const.present and const.type.size > text.INLINE
    }
    beside = str(file.with_suffix(".npz"))
    if large:
        write_npz(beside, large)
    write_atomic(file, text.dump(graph).encode())
    return [str(file), beside] if large else [str(file)]
