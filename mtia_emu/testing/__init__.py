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

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtia_emu.compiler.foreign import place_of
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs

from ..errors import UserError
from ..machine.chip import Chip, load_chip
from .compare import assert_close, distance
from .grower import ChoiceSource, Grower, Seeded
from .motifs import MOTIFS, Motif, motif
from .motifs_bounds import bounds, known
from .motifs_joint import JOINT

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = [
    "BUILTIN",
    "JOINT",
    "MOTIFS",
    "Feed",
    "Grower",
    "assert_close",
    "bounds",
    "chips",
    "distance",
    "graphs",
    "known",
    "motif",
    "random_graph",
    "tensors",
]

BUILTIN = tuple(MOTIFS)
"""The motifs of this package, by name: others may be listed later."""
Array = np.ndarray[Any, Any]
Feed = Callable[[Graph], dict[str, Array]]


def graphs(
    dtype: str = "fp32", motifs: Sequence[str] = (), *, most: int = 4, empty: bool = False
) -> SearchStrategy[Graph]:
    """Return lawful graphs of floats `dtype` made of one to `most` motifs: all of `MOTIFS`, or those named.

    Motifs are what passes match, in many spellings, some of them traps: products with their epilogues, norms,
    rotary embeddings, grouped attention, embedding bags, chains of elementwise work and moves of elements.
    Values have many users, some of them are outputs. With `empty` a dimension may be 0. Weights are present.
    `motif` lists one of your own: a function that adds nodes to a `Grower`.
    """
    from hypothesis import strategies as st

    chosen = tuple(motifs) or tuple(MOTIFS)

    @st.composite
    def build(draw: DrawFn) -> Graph:
        return _grow(_Drawn(draw), dtype, chosen, most, empty)

    return build()


def random_graph(
    *seed: int, dtype: str = "fp32", motifs: Sequence[str] = (), most: int = 4, empty: bool = False
) -> Graph:
    """Return the graph of a seed, of the kind that `graphs` draws; quicker by far, and not shrunk."""
    return _grow(Seeded(*seed), dtype, tuple(motifs) or tuple(MOTIFS), most, empty)


def _grow(source: ChoiceSource, dtype: str, motifs: Sequence[str], most: int, empty: bool) -> Graph:
    grower = Grower(source, dtype, empty=empty)
    for _ in range(1 + source.below(most)):
        name = source.pick(motifs)
        try:
            MOTIFS[name](grower)
        except Exception as error:
            if name in BUILTIN or not isinstance(source, Seeded):  # hypothesis has exceptions of its own
                raise
            raise UserError(f"motif {name!r} {_raised(error, MOTIFS[name])}") from error
    return grower.graph()


def _raised(error: Exception, motif: Motif) -> str:
    """Return what somebody's motif raises, and at which line of its file."""
    file = getattr(sys.modules.get(motif.__module__), "__file__", None) or ""
    return f"raises {type(error).__name__}: {error} ({place_of(error.__traceback__, file)})"


class _Drawn:
    """Choices that hypothesis makes, and shrinks."""

    def __init__(self, draw: DrawFn) -> None:
        from hypothesis import strategies

        self._draw, self._st = draw, strategies

    def pick(self, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return self._draw(self._st.sampled_from(choices))

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1."""
        return self._draw(self._st.integers(0, limit - 1))

    def order(self, count: int) -> tuple[int, ...]:
        """Return 0 .. count - 1 in any order."""
        return tuple(self._draw(self._st.permutations(range(count))))


def tensors() -> SearchStrategy[Feed]:
    """Return functions that give a graph random inputs: indices lie within their tables."""
    from hypothesis import strategies as st

    def feed(seed: int) -> Feed:
        return lambda graph: random_inputs(graph, seed)

    return st.integers(0, 1 << 16).map(feed)


CHIP_CHOICES: dict[str, tuple[Any, ...]] = {
    "grid.rows": (1, 2, 3),
    "grid.cols": (1, 2, 3),
    "pe.matrix.rows": (1, 2, 4, 8),
    "pe.matrix.cols": (1, 2, 4, 8),
    "pe.matrix.dataflow": ("ws", "os", "is"),
    "pe.reduce.banks": (1, 2, 3, 4),
    "pe.reduce.bank_rows": (4, 8),
    "pe.local.bytes": (8192, 16384, 65536),
    "sram.bytes": (8192, 65536, 262144),
}


def chips() -> SearchStrategy[Chip]:
    """Return small chips of every dataflow, on which limits of all memories are near."""
    from hypothesis import strategies as st

    drawn = st.fixed_dictionaries({key: st.sampled_from(each) for key, each in CHIP_CHOICES.items()})
    return drawn.map(lambda settings: load_chip("tiny", settings))
