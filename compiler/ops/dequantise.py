"""Weights of few bits, as they lie in memory, and the matrix that they stand for.

Codes are two's complement. Those of 4 bits stand two in a byte: row r of the bytes has row r of the matrix
in its low half, row r + `plane_rows` in its high half, so that each half is a run of rows. Rows share a scale
and a zero point by blocks along k; bytes of zero points hold blocks as those of codes hold rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from mtia_emu.kernels.matmul.packing import Packing, packing_of

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import compute
from mtia_emu.types import INT8, NARROW_FLOATS, UINT8, DType, TensorType, dtype_of

from ..graph import Attrs, Const
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, elementwise, integer, need, register, wide

if TYPE_CHECKING:
    from ..build import NodeBuilder

CODES = (UINT8, INT8, *NARROW_FLOATS)  # uint8: two of 4 bits


@dataclass(frozen=True)
class PackedShape:
    """Weights to be stored: k rows, n columns, rows to a scale, and the type of an element of codes.

    `of` matrices of that form lie under one another; 0: it is one alone.
    """

    k: int
    n: int
    block: int
    codes: DType
    of: int = 0


Load = Callable[[], Array]
Loads = tuple[Load, Load, Load | None]  # codes, scales, zero points


def packing(attrs: Attrs, codes: DType) -> Packing:
    """Return the packing that a node's attributes and its codes' type say; raise `UserError` for none."""
    k, block = integer(attrs, "k"), integer(attrs, "block")
    if codes not in CODES:
        raise UserError(f"codes must be {', '.join(map(str, CODES))}, not {codes}")
    if k < 1 or block < 1:
        raise UserError(f"k and block must be above 0, got {k} and {block}")
    return packing_of(k, block, codes)


def pack(codes: Array, block: int) -> Array:
    """Return codes from -8 to 7 [k, n] two in a byte [plane_rows, n]."""
    form = Packing(len(codes), min(block, len(codes)), 2)
    low, high = codes[: form.plane_rows], codes[form.plane_rows :]
    packed = (low.astype(np.int8).view(np.uint8) & 15).copy()
    packed[: len(high)] |= high.astype(np.int8).view(np.uint8) << 4
    return packed


def store(codes: Array, bits: int, block: int) -> Array:
    """Return signed codes [k, n] as they lie in memory: of 4 bits two in a byte, of 8 bits one."""
    return pack(codes, block) if bits == 4 else np.ascontiguousarray(codes.astype(np.int8))


def _unpack(packed: Array, rows: int, kind: np.dtype) -> Array:
    """Return the codes [rows, n] of both planes."""
    planes = [compute(f"bit_{name}4", [packed], kind) for name in ("low", "high")]
    return np.concatenate(planes)[:rows]


def expected(types: Types, attrs: Attrs) -> TensorType:
    """Return the type of the matrix of codes, scales and maybe zero points; raise `UserError` where none."""
    codes, scales = need(types[0]), need(types[1])
    form = packing(attrs, codes.dtype)
    zeros = types[2] if len(types) > 2 else None
    if codes.rank != 2 or codes.shape[0] != form.plane_rows:
        raise UserError(f"codes must have {form.plane_rows} rows, not {codes}")
    columns = codes.shape[1]
    if scales.shape != (form.blocks, columns) or not scales.dtype.is_float:
        raise UserError(f"scales must be floats [{form.blocks}, {columns}], not {scales}")
    kind = UINT8 if form.planes == 2 else INT8
    if zeros is not None and zeros != TensorType(kind, (form.plane_blocks, columns)):
        raise UserError(f"zero points must be {kind}[{form.plane_blocks},{columns}], not {zeros}")
    return TensorType(scales.dtype, (form.k, columns))


def expand(arrays: Arrays, attrs: Attrs) -> Array:
    """Return (code - zero) * scale as [k, n] in the scales' type; only the last step rounds."""
    codes, scales = array(arrays[0]), array(arrays[1])
    zeros = arrays[2] if len(arrays) > 2 else None
    form = packing(attrs, dtype_of(codes))
    at = np.arange(form.k) // form.block
    values = _unpack(codes, form.k, np.dtype(np.float32)) if form.planes == 2 else codes.astype(np.float32)
    if zeros is not None:
        points = _unpack(zeros, form.blocks, np.dtype(np.float32)) if form.planes == 2 else zeros
        values = values - points.astype(np.float32)[at]
    return (values * wide(scales)[at]).astype(scales.dtype)


def weights(builder: NodeBuilder, name: str, form: PackedShape, to: DType, load: Loads, present: bool) -> str:
    """Return the matrix [k, n] of floats `to` whose codes, scales and maybe zero points are made when read.

    Each loader gives its array as it lies in memory. Without values (`present`) only the types are known.
    """
    stored = planes(builder, name, form, to, load, present)
    return builder.add("dequantise", *stored, k=form.k, block=min(form.block, form.k))


def planes(
    builder: NodeBuilder, name: str, form: PackedShape, to: DType, load: Loads, present: bool
) -> list[str]:
    """Return codes, scales and maybe zero points of one matrix, or of `form.of`: see `weights`."""
    kind, lead = form.codes, (form.of,) if form.of else ()
    packed = Packing(form.k, min(form.block, form.k), 2 if kind == UINT8 else 1)
    points = UINT8 if kind == UINT8 else INT8
    parts = [
        ("codes", TensorType(kind, (*lead, packed.plane_rows, form.n)), load[0]),
        ("scales", TensorType(to, (*lead, packed.blocks, form.n)), load[1]),
        ("zeros", TensorType(points, (*lead, packed.plane_blocks, form.n)), load[2]),
    ]
    return [
        builder.put(builder.fresh(f"{name}.{part}"), Const(kind, loader if present else None))
        for part, kind, loader in parts
        if loader is not None
    ]


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (expected(types, attrs),)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (expand(arrays, attrs),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return elementwise(results[0].size, 2 * results[0].size)


register(
    Op(
        "dequantise",
        "(codes - zeros?) * scales, by blocks of `block` rows: weights of 4 or 8 bits as a matrix [k, n]",
        (2, 3),
        _infer,
        _reference,
        _count,
        ("k", "block"),
        stored=True,
    )
)

no_gradient("its codes are whole numbers (right: train in floats, then quantise)", "dequantise")
