"""The list of models. To add one, write its sizes here; to add a family, give it `ZooModel`'s methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .bags import BagTables
from .deepseek import DeepSeek
from .dlrm import Dlrm
from .gpt import Gpt
from .llama import Llama
from .mixture import Mixture
from .resnet import ResNet
from .rope import RopeScaling, Yarn
from .writer import Fact, ModelWriter

if TYPE_CHECKING:
    import numpy as np


class ZooModel(Protocol):
    """What a family of models must offer."""

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        ...

    def default_dims(self) -> dict[str, int]:
        """Return the dimensions to bind and their defaults, in the order in which a file name shows them."""
        ...

    def least_dims(self) -> dict[str, int]:
        """Return the least value of each dimension whose least value is not 1."""
        ...

    def graph(self, name: str, dims: dict[str, int]) -> ModelWriter:
        """Return the graph with every dimension bound; the data file of absent weights takes `name`."""
        ...

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return a random value, of its type's shape, for each graph input."""
        ...


# Published sizes: from the repository named in `source`. MLPerf's rows and multi-hot sizes: the arguments of
# the DLRM-DCNv2 reference (mlcommons/training, recommendation_v2/torchrec_dlrm/README.md).
_MLPERF_ROWS = (
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10,
    2209, 11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36,
)  # fmt: skip
_MLPERF_MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)

MODELS: dict[str, ZooModel] = {
    "llama-tiny": Llama(
        source="chosen here: small enough to execute in a test",
        layers=2, hidden=256, heads=8, kv_heads=2, head_dim=32, ffn=512, vocab=1024,
        rope_theta=10000.0, context=2048, seq=16,
    ),
    "llama-3.2-1b": Llama(
        source="meta-llama/Llama-3.2-1B config.json",
        layers=16, hidden=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab=128256, tied=True,
        rope_theta=500000.0, context=131072,
        rope_scaling=RopeScaling(
            factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
        ),
    ),
    "llama-2-7b": Llama(
        source="meta-llama/Llama-2-7b-hf config.json",
        layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, ffn=11008, vocab=32000,
        rope_theta=10000.0, context=4096,
    ),
    "llama-3-8b": Llama(
        source="meta-llama/Meta-Llama-3-8B config.json",
        layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocab=128256,
        rope_theta=500000.0, context=8192,
    ),
    "llama-3-70b": Llama(
        source="meta-llama/Meta-Llama-3-70B config.json",
        layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, ffn=28672, vocab=128256,
        rope_theta=500000.0, context=8192,
    ),
    "llama-3.1-405b": Llama(
        source="meta-llama/Llama-3.1-405B config.json",
        layers=126, hidden=16384, heads=128, kv_heads=8, head_dim=128, ffn=53248, vocab=128256,
        rope_theta=500000.0, context=131072,
        rope_scaling=RopeScaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
        ),
    ),
    "gpt-tiny": Gpt(
        source="chosen here: small enough to execute in a test",
        layers=2, hidden=128, heads=4, kv_heads=4, head_dim=32, ffn=512, vocab=512, context=128, seq=16,
    ),
    "gpt2-124m": Gpt(
        source="openai-community/gpt2 config.json",
        layers=12, hidden=768, heads=12, kv_heads=12, head_dim=64, ffn=3072, vocab=50257, context=1024,
    ),
    "mpt-7b": Gpt(
        source="mosaicml/llm-foundry scripts/train/yamls/pretrain/mpt-7b.yaml, learned positions",
        layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, ffn=16384, vocab=50368, context=2048,
    ),
    "mixture-tiny": Mixture(
        source="chosen here: small enough to execute in a test",
        layers=2, hidden=128, heads=4, kv_heads=2, head_dim=32, ffn=96, vocab=512,
        rope_theta=10000.0, context=2048, head_norms=True, experts=8, each=2, seq=16,
    ),
    "mixtral-8x22b": Mixture(
        source="mistralai/Mixtral-8x22B-v0.1 config.json",
        layers=56, hidden=6144, heads=48, kv_heads=8, head_dim=128, ffn=16384, vocab=32000,
        rope_theta=1000000.0, context=65536, experts=8, each=2,
    ),
    "qwen3-235b": Mixture(
        source="Qwen/Qwen3-235B-A22B config.json",
        layers=94, hidden=4096, heads=64, kv_heads=4, head_dim=128, ffn=1536, vocab=151936,
        rope_theta=1000000.0, context=40960, epsilon=1e-6, head_norms=True, experts=128, each=8,
    ),
    "deepseek-tiny": DeepSeek(
        source="chosen here: small enough to execute in a test",
        layers=2, hidden=128, heads=4, kv_heads=4, head_dim=16, ffn=256, vocab=512,
        rope_theta=10000.0, context=2048, seq=16,
        query_rank=48, latent=32, nope=32, value=32, dense=1, experts=8, each=2, expert_ffn=64, shared=1,
        groups=4, chosen_groups=2, share_scale=2.5,
        yarn=Yarn(factor=4.0, original_context=512, theta=10000.0),
    ),
    "deepseek-v3": DeepSeek(
        source="deepseek-ai/DeepSeek-V3 config.json",
        layers=61, hidden=7168, heads=128, kv_heads=128, head_dim=64, ffn=18432, vocab=129280,
        rope_theta=10000.0, context=163840, epsilon=1e-6,
        query_rank=1536, latent=512, nope=128, value=128, dense=3, experts=256, each=8, expert_ffn=2048,
        shared=1, groups=8, chosen_groups=4, share_scale=2.5,
        yarn=Yarn(factor=40.0, original_context=4096, theta=10000.0),
    ),
    "dlrm-small": Dlrm(
        source="chosen here: MLPerf's structure over tables that fit in a test",
        rows=(10000, 4096, 2048, 1000, 512, 100, 16, 3), pooling=(3, 8, 1, 5, 20, 1, 2, 1), dim=64,
        dense_arch=(128, 64), over_arch=(256, 128, 1), cross_layers=3, cross_rank=64, batch=64,
    ),
    "dlrm-mlperf": Dlrm(
        source="mlcommons/training recommendation_v2/torchrec_dlrm/README.md",
        rows=_MLPERF_ROWS, pooling=_MLPERF_MULTI_HOT, dim=128,
        dense_arch=(512, 256, 128), over_arch=(1024, 1024, 512, 256, 1), cross_layers=3, cross_rank=512,
        batch=512,
    ),
    # Two published totals, 200 GB and 0.22 GFLOP a sample (Firoozshahian et al., ISCA 2023, MC2), met by
    # sizes chosen here: how they are made up is not published.
    "dlrm-mc2": Dlrm(
        source="chosen here: 200 GB and 0.22 GFLOP a sample, as MC2 of ISCA 2023",
        rows=(2600000,) * 300, pooling=(20,) * 300, dim=128,
        dense_arch=(512, 256, 128), over_arch=(1024, 512, 1), cross_layers=3, cross_rank=300, batch=256,
    ),
    "dlrm-1tb": Dlrm(
        source="chosen here: 1 TB, the tables of MLPerf's model twenty times over",
        rows=_MLPERF_ROWS * 20, pooling=_MLPERF_MULTI_HOT * 20, dim=128,
        dense_arch=(512, 256, 128), over_arch=(1024, 1024, 512, 256, 1), cross_layers=3, cross_rank=512,
        batch=512,
    ),
    "resnet-tiny": ResNet(
        source="chosen here: small enough to execute in a test",
        blocks=(1, 1), width=16, classes=10, side=32, batch=2,
    ),
    "resnet-50": ResNet(
        source="He et al., Deep Residual Learning, 2015, table 1",
        blocks=(3, 4, 6, 3), width=64, classes=1000, side=224, batch=8,
    ),
    # FBGEMM tells its configurations apart by number; the source is in bags.py.
    "tbe-production-103": BagTables(
        rows=(20072405, 633),
        dims=(8, 8),
    ),
    "tbe-production-61": BagTables(
        rows=(3519, 7529582, 155, 5797, 2737037, 66450),
        dims=(128,) * 6,
    ),
    "tbe-production-50": BagTables(
        rows=(2, 11899818),
        dims=(128,) * 2,
    ),
    "tbe-production-1": BagTables(
        rows=(661, 48, 5801, 653, 30, 224, 612, 710, 30000000, 6784921, 375, 11, 2658, 5376992, 296, 236,
            760, 763),
        dims=(128, 128, 128, 128, 128, 20, 20, 20, 128, 128, 128, 128, 128, 128, 20, 20, 20, 20),
    ),
    "tbe-production-3": BagTables(
        rows=(4, 2, 301571, 26077834, 2, 2, 4, 6, 752, 5287864, 2307981, 518, 613, 7677271, 3489261, 313, 3,
            484, 773, 504),
        dims=(128, 128, 128, 128, 128, 24, 20, 20, 20, 128, 128, 128, 128, 128, 128, 24, 24, 20, 20, 20),
    ),
    "tbe-production-27": BagTables(
        rows=(2, 2, 61787, 144013, 4, 2, 685, 603, 692, 30000000, 1776198, 6784906, 11, 729, 16, 6561149,
            3086, 420, 507, 3, 22, 613),
        dims=(128, 128, 128, 128, 128, 24, 20, 20, 20, 128, 128, 128, 128, 128, 128, 128, 128, 24, 24, 20,
            20, 20),
    ),
    "tbe-production-0": BagTables(
        rows=(2, 284285, 4, 30000000, 4348658, 6784913, 642110, 236, 278, 3618081),
        dims=(128,) * 10,
    ),
    "tbe-production-13": BagTables(
        rows=(2, 14451, 714, 5, 30000000, 6784941, 4364852, 257, 2, 6171979, 758, 257),
        dims=(128, 128, 128, 24, 128, 128, 128, 128, 128, 128, 24, 24),
    ),
    "tbe-production-2": BagTables(
        rows=(227, 2, 1605631, 31, 2, 642, 2, 30000000, 6783150, 478, 237, 4539974, 5755862, 690),
        dims=(128, 128, 128, 128, 128, 24, 24, 128, 128, 128, 128, 128, 128, 12),
    ),
    "tbe-production-5": BagTables(
        rows=(426463, 8171523, 5587, 2, 30000000, 1943, 107153, 424, 6442728, 4062956),
        dims=(128, 128, 128, 20, 128, 128, 128, 128, 128, 128),
    ),
}  # fmt: skip
