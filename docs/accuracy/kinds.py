"""The ops of the compiler under the names that the MTIA paper gives operators.

A product is FC whatever its operands: an op does not tell two activations from weights.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtia_emu.compiler.ops import OPS

from mtia_emu.results.report import Layer

OTHERS = "Others"  # every op that is not named here
KINDS: dict[str, tuple[str, ...]] = {
    "FC": ("matmul", "matmul_map", "matmul_packed"),
    "EmbeddingBag": ("embedding_bag", "embedding_bags", "ragged_split"),
    "Concat": ("concat", "append"),
    "Transpose": ("transpose", "reshape"),
    "Quantize": ("quantise_rows",),
    "Dequantize": ("dequantise",),
}
_KIND_OF = dict.fromkeys(OPS, OTHERS) | {op: kind for kind, ops in KINDS.items() for op in ops}


def kind_of(op: str) -> str:
    """Return the published operator that an op counts as. Raises `KeyError` for what is no op."""
    return _KIND_OF[op]


def cycles_by_kind(layers: Iterable[Layer]) -> dict[str, float]:
    """Return the cycles of layers by published operator; one that has no layer is not there."""
    sums: dict[str, float] = {}
    for layer in layers:
        kind = kind_of(layer.op)
        sums[kind] = sums.get(kind, 0.0) + layer.cycles
    return sums
