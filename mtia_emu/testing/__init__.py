"""Random graphs, tensors and chips for property tests: of the product, and of passes and chips of your own.

    from hypothesis import given
    from mtia_emu import testing

    @given(testing.graphs(), testing.tensors())
    def test_my_pass_keeps_results(graph, tensors):
        inputs = tensors(graph)
        testing.assert_close(evaluate(MyPass()(graph), inputs), evaluate(graph, inputs), 1e-5)

Needs hypothesis, which is imported where it is used: `pip install 'mtia-emu[test]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chip import Chip, load_chip
from ..compiler.graph import Graph
from ..compiler.samples import random_inputs
from .compare import assert_close, distance
from .grower import Grower
from .motifs import MOTIFS

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["MOTIFS", "Feed", "assert_close", "chips", "distance", "graphs", "tensors"]

Array = np.ndarray[Any, Any]
Feed = Callable[[Graph], dict[str, Array]]


def graphs(
    dtype: str = "fp32", motifs: Sequence[str] = (), *, most: int = 4, empty: bool = False
) -> SearchStrategy[Graph]:
    """Return lawful graphs of floats `dtype` made of one to `most` motifs: all of `MOTIFS`, or those named.

    Motifs are what passes match, in many spellings, some of them traps: products with their epilogues, norms,
    rotary embeddings, grouped attention, embedding bags, chains of elementwise work and moves of elements.
    Values have many users, some of them are outputs. With `empty` a dimension may be 0. Weights are present.
    """
    from hypothesis import strategies as st

    chosen = tuple(motifs) or tuple(MOTIFS)

    @st.composite
    def build(draw: DrawFn) -> Graph:
        grower = Grower(draw, dtype, empty=empty)
        for _ in range(draw(st.integers(1, most))):
            MOTIFS[draw(st.sampled_from(chosen))](grower)
        return grower.graph()

    return build()


def tensors() -> SearchStrategy[Feed]:
    """Return functions that give a graph random inputs: indices lie within their tables."""
    from hypothesis import strategies as st

    def feed(seed: int) -> Feed:
        return lambda graph: random_inputs(graph, seed)

    return st.integers(0, 1 << 16).map(feed)


def chips() -> SearchStrategy[Chip]:
    """Return small chips of every dataflow, on which limits of all memories are near."""
    from hypothesis import strategies as st

    side, lanes = st.integers(1, 3), st.sampled_from([1, 2, 4, 8])
    return st.fixed_dictionaries(
        {
            "grid.rows": side,
            "grid.cols": side,
            "pe.matrix.rows": lanes,
            "pe.matrix.cols": lanes,
            "pe.matrix.dataflow": st.sampled_from(["ws", "os", "is"]),
            "pe.reduce.banks": st.integers(1, 4),
            "pe.reduce.bank_rows": st.sampled_from([4, 8]),
            "pe.local.bytes": st.sampled_from([8192, 16384, 65536]),
            "sram.bytes": st.sampled_from([8192, 65536, 262144]),
        }
    ).map(lambda settings: load_chip("tiny", settings))
