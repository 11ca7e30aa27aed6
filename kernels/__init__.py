"""How one op becomes commands. A kernel knows operands, a chip and the command set: no graph, no engine."""

from .attention.back_kernel import AttentionBackKernel
from .attention.kernel import AttentionKernel
from .bags.gather import GatherKernel
from .bags.pooled import EmbeddingBagKernel
from .kernel import Kernel
from .matmul.experts import ExpertMatmulKernel, RowsToTurnsKernel
from .matmul.kernel import MatmulKernel, PackedMatmulKernel
from .matmul.packed_experts import PackedExpertMatmulKernel
from .rows.kernel import CopyKernel, ScalarKernel, TapeKernel
from .rows.scan import ScanKernel
from .rows.scatter import GroupKernel, ScatterKernel
from .rows.top import TopKernel
from .rows.update import PartialSumsKernel, UpdateKernel

ALL = (
    AttentionKernel(),
    AttentionBackKernel(),
    MatmulKernel(),
    PackedMatmulKernel(),
    ExpertMatmulKernel(),
    PackedExpertMatmulKernel(),
    RowsToTurnsKernel(),
    TapeKernel("map", "elementwise tape"),
    TapeKernel("row", "tape that folds rows: softmax, norms, reductions", folds=True),
    CopyKernel("copy", "strided copy: transposes, concatenation, slices that no view can stand for"),
    TapeKernel("rotary", "rotary position embedding on the two halves of each row"),
    ScanKernel(),
    ScatterKernel(),
    GroupKernel(),
    UpdateKernel(),
    PartialSumsKernel(),
    TopKernel(),
    GatherKernel(),
    EmbeddingBagKernel(),
    ScalarKernel(),
)
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in ALL}
