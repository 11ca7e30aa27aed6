"""The ops of the graph, one file a family: `OPS` lists all of them, `ONNX` how they are spelt there."""

from . import (  # noqa: F401 - each lists its ops as it is imported
    activations,
    attention,
    attention_packed,
<<<<<<< HEAD
    causal_conv,
=======
    conv,
>>>>>>> conv
    convolve,
    dequantise,
    elementwise,
    embedding_bag,
    experts,
    fused_attention,
    gather,
    indexing,
    linear_models,
    map,
    matmul,
    matmul_map,
    matmul_packed,
    move,
    nbits,
    normalise,
    pool,
    qlinear,
    quantise,
    quantise_rows,
    rare,
    recurrent,
    reduce,
    resize,
    rotary,
    sample,
    scan,
    shapes,
    softmax,
    spectral,
    training,
    tree_ensemble,
)
from .base import OPS, Count, Op, check_node, infer, op_named, reference, register, work
from .spelling import ONNX, Call, Unsupported, onnx

__all__ = [
    "ONNX",
    "OPS",
    "Call",
    "Count",
    "Op",
    "Unsupported",
    "check_node",
    "infer",
    "onnx",
    "op_named",
    "reference",
    "register",
    "work",
]
