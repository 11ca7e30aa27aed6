"""DLRM-DCNv2, the recommender of MLPerf, in fp16: embedding bags and dense features, crossed, then an MLP.

An embedding bag of fixed pooling is spelled as Gather, then ReduceSum over the pooling axis, as nn.Embedding
and a sum export; nn.EmbeddingBag would export as a Loop whose result has no static shape. The rest is spelled
as an exported torchrec model: Gemm for each linear layer, and for a low-rank cross layer two Gemm, Add, Mul
and Add: `x0 * (W (V x) + b) + x`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

DENSE_FEATURES = 13  # Criteo's integer features


@dataclass(frozen=True, kw_only=True)
class Dlrm:
    """The sizes of a recommender; `source` says whose they are, `batch` is the default number of samples."""

    source: str
    rows: tuple[int, ...]
    pooling: tuple[int, ...]
    dim: int
    dense_arch: tuple[int, ...]
    over_arch: tuple[int, ...]
    cross_layers: int
    cross_rank: int
    batch: int

    @property
    def width(self) -> int:
        """Return the number of features that are crossed: the dense vector and one vector a table."""
        return (len(self.rows) + 1) * self.dim

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        parameters = self.graph("", self.default_dims()).parameters
        return {
            "tables": fact(len(self.rows), "tables", self.source),
            "rows": self._fact(list(self.rows), "rows of each table", "num_embeddings_per_feature"),
            "pooling": self._fact(list(self.pooling), "lookups a sample in each table", "multi_hot_sizes"),
            "dim": self._fact(self.dim, "elements", "embedding_dim"),
            "dense_features": fact(DENSE_FEATURES, "features", "Criteo 1TB click logs: 13 integer features"),
            "dense_arch": self._fact(list(self.dense_arch), "layer sizes", "dense_arch_layer_sizes"),
            "over_arch": self._fact(list(self.over_arch), "layer sizes", "over_arch_layer_sizes"),
            "cross_layers": self._fact(self.cross_layers, "layers", "dcn_num_layers"),
            "cross_rank": self._fact(self.cross_rank, "elements", "dcn_low_rank_dim"),
            "parameters": fact(parameters, "parameters", "counted from the weights of the graph"),
            "weight_bytes": fact(parameters * WEIGHT_BYTES, "B", "parameters x 2 B (fp16)"),
        }

    def _fact(self, value: int | list[int], unit: str, key: str) -> Fact:
        return fact(value, unit, f"{self.source}: {key}" if self.source.endswith(".md") else self.source)

    def default_dims(self) -> dict[str, int]:
        """Return the default batch."""
        return {"batch": self.batch}

    def least_dims(self) -> dict[str, int]:
        """Return nothing: a batch has at least one sample."""
        return {}

    def graph(self, name: str, dims: dict[str, int]) -> ModelWriter:
        """Return the graph of one batch: `dense` and `indices_{table}` in, `probability` out."""
        w, batch = ModelWriter(name), dims["batch"]
        x = w.input("dense", np.float16, batch, DENSE_FEATURES)
        x = self._mlp(w, x, "dense_arch", DENSE_FEATURES, self.dense_arch)
        bags = [self._bag(w, table, batch) for table in range(len(self.rows))]
        x = w.op("Concat", x, *bags, name="interaction.concat", axis=1)
        x = self._cross(w, x)
        x = self._mlp(w, x, "over_arch", self.width, self.over_arch[:-1])
        x = self._linear(w, x, "over_arch.logits", self.over_arch[-2], self.over_arch[-1], gain=1.0)
        w.op("Sigmoid", x, name="probability")
        w.output("probability", np.float16, batch, self.over_arch[-1])
        return w

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return random dense[batch, features], and rows [batch, pooling] drawn uniformly from each table."""
        rng, batch = np.random.default_rng(seed), dims["batch"]
        dense = rng.standard_normal((batch, DENSE_FEATURES), np.float32)
        values: dict[str, np.ndarray] = {"dense": dense.astype(np.float16)}
        for table, (rows, pooling) in enumerate(zip(self.rows, self.pooling, strict=True)):
            values[f"indices_{table}"] = rng.integers(0, rows, (batch, pooling), np.int64)
        return values

    def _bag(self, w: ModelWriter, table: int, batch: int) -> str:
        """Return the sum of the looked-up rows of one table: fp16[batch,dim]."""
        rows, pooling, name = self.rows[table], self.pooling[table], f"embedding_bags.{table}"
        indices = w.input(f"indices_{table}", np.int64, batch, pooling)
        weight = w.weight(f"{name}.weight", rows, self.dim, std=pooling**-0.5)
        looked_up = w.op("Gather", weight, indices, name=f"{name}.gather", axis=0)
        return w.op("ReduceSum", looked_up, w.ints(1), name=name, keepdims=0)

    def _cross(self, w: ModelWriter, x0: str) -> str:
        """Return the features after the low-rank cross layers: fp16[batch,width]."""
        x = x0
        for layer in range(self.cross_layers):
            name = f"crossnet.{layer}"
            down = w.weight(f"{name}.V", self.cross_rank, self.width, std=self.width**-0.5)
            up = w.weight(f"{name}.W", self.width, self.cross_rank, std=0.5 * self.cross_rank**-0.5)
            low = w.op("Gemm", x, down, name=f"{name}.down", transB=1)
            high = w.op("Gemm", low, up, name=f"{name}.up", transB=1)
            bias = w.weight(f"{name}.bias", self.width, std=0.1)
            high = w.op("Add", high, bias, name=f"{name}.biased")
            high = w.op("Mul", x0, high, name=f"{name}.crossed")
            x = w.op("Add", high, x, name=name)
        return x

    def _mlp(self, w: ModelWriter, x: str, name: str, inner: int, sizes: tuple[int, ...]) -> str:
        """Return `x` after linear layers of these sizes, each with a ReLU."""
        for layer, outer in enumerate(sizes):
            x = self._linear(w, x, f"{name}.{layer}", inner, outer, gain=2.0)
            x = w.op("Relu", x, name=f"{name}.{layer}.relu")
            inner = outer
        return x

    def _linear(self, w: ModelWriter, x: str, name: str, inner: int, outer: int, gain: float) -> str:
        """Return a linear layer of `x` whose random weights multiply the power by `gain`; ReLU takes half."""
        weight = w.weight(f"{name}.weight", outer, inner, std=(gain / inner) ** 0.5)
        bias = w.weight(f"{name}.bias", outer, std=0.1)
        return w.op("Gemm", x, weight, bias, name=name, transB=1)
