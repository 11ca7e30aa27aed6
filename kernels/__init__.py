"""How one op becomes commands. A kernel knows operands, a chip and the command set: no graph, no engine."""

KERNELS: dict[str, str] = {
    "attention": "attention by tiles, scores in local memory alone",
    "matmul": "tiled matrix product with an epilogue on each output tile",
    "matmul_packed": "tiled matrix product with weights of few bits, expanded by SIMD before the array",
    "map": "elementwise tape",
    "row": "tape that folds rows: softmax, norms, reductions",
    "copy": "strided copy: transposes, concatenation, slices that no view can stand for",
    "rotary": "rotary position embedding on the two halves of each row",
    "gather": "rows by index",
    "embedding_bag": "rows by index, pooled",
    "scalar": "an op by its reference on one core",
}
