"""The ops of the compiler under the names that the MTIA paper gives operators.

A product is FC whatever its operands: an op does not tell two activations from weights.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.results.report import Layer

OTHERS = "Others"
KINDS: dict[str, tuple[str, ...]] = {
    "FC": ("matmul", "matmul_map", "matmul_packed"),
    "EmbeddingBag": ("embedding_bag", "embedding_bags", "ragged_split"),
    "Concat": ("concat", "append"),
    "Transpose": ("transpose", "reshape"),
    "Quantize": ("quantise_rows",),
    "Dequantize": ("dequantise",),
    OTHERS: (
        *FUNCTIONS,
        *("map", "cast", "bitcast", "rotary", "attention", "softmax", "log_softmax", "rmsnorm", "layernorm"),
        *("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "cumsum", "cumprod"),
        *("gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "one_hot", "topk"),
        *("slice", "expand", "pad", "tile", "range", "nonzero", "det"),
        *("deform_columns", "grid_sample", "roi_align"),
    ),
}
_KIND_OF = {op: kind for kind, ops in KINDS.items() for op in ops}


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
