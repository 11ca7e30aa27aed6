"""Batched embedding bags (TBE) of production recommenders: many tables of unlike sizes, looked up together.

Spelled as an embedding bag of fixed pooling exports: Gather, then ReduceSum over the pooling axis. Rows are
fp16; pooled rows are widened to fp32 and stand side by side, as FBGEMM returns them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import streams
from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

SOURCE = (
    "pytorch/FBGEMM fbgemm_gpu/bench/utils_script/run_tbe_benchmark_sweep_oss.sh @ e35e07b, "
    "representative benchmarks from production TBE configs"
)


@dataclass(frozen=True, kw_only=True)
class BagTables:
    """Tables of `rows` by `dims` elements; `skew` is the law of the look-ups that are drawn as inputs."""

    rows: tuple[int, ...]
    dims: tuple[int, ...]
    source: str = SOURCE
    pooling: int = 20
    batch: int = 2048
    skew: str = "histogram:dlrm-2022"

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        parameters = sum(rows * dim for rows, dim in zip(self.rows, self.dims, strict=True))
        return {
            "tables": fact(len(self.rows), "tables", self.source),
            "rows": fact(list(self.rows), "rows of each table", self.source),
            "dims": fact(list(self.dims), "elements of a row of each table", self.source),
            "pooling": fact(self.pooling, "lookups a sample in each table", self.source),
            "skew": fact(self.skew, "-", "estimate: the benchmark draws rows alike, production does not"),
            "parameters": fact(parameters, "parameters", "counted from the weights of the graph"),
            "weight_bytes": fact(parameters * WEIGHT_BYTES, "B", "parameters x 2 B (fp16)"),
        }

    def default_dims(self) -> dict[str, int]:
        """Return the batch of the source."""
        return {"batch": self.batch}

    def least_dims(self) -> dict[str, int]:
        """Return nothing: a batch has at least one sample."""
        return {}

    def graph(self, name: str, dims: dict[str, int]) -> ModelWriter:
        """Return the graph of one batch: `indices_{table}` in, `pooled` out, fp32[batch, sum of dims]."""
        w, batch = ModelWriter(name), dims["batch"]
        bags = [self._bag(w, table, batch) for table in range(len(self.rows))]
        w.op("Concat", *bags, name="bags", axis=1)
        w.cast("bags", np.float32, name="pooled")
        w.output("pooled", np.float32, batch, sum(self.dims))
        return w

    def _bag(self, w: ModelWriter, table: int, batch: int) -> str:
        name = f"embedding_bags.{table}"
        indices = w.input(f"indices_{table}", np.int64, batch, self.pooling)
        weight = w.weight(f"{name}.weight", self.rows[table], self.dims[table], std=self.pooling**-0.5)
        rows = w.op("Gather", weight, indices, name=f"{name}.gather", axis=0)
        return w.op("ReduceSum", rows, w.ints(1), name=name, keepdims=0)

    @property
    def popularity(self) -> streams.Popularity:
        """Return how unevenly rows are looked up."""
        return streams.Popularity(streams.parse(self.skew))

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return the rows [batch, pooling] that each table is asked for, drawn by `skew`."""
        law, shape = streams.parse(self.skew), (dims["batch"], self.pooling)
        return {
            f"indices_{table}": streams.draw(law, np.random.default_rng([seed, table]), rows, shape)
            for table, rows in enumerate(self.rows)
        }
