"""The look-ups with which a zoo model is timed where nothing is executed: those of its example inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import settings
from ..engine.lookups import Lookups, from_inputs
from ..errors import UserError
from ..program.census import looks_up
from ..program.inputs import typed_inputs
from ..program.isa import Program

if TYPE_CHECKING:
    from ..sources import Source

ZOO = "zoo:"


def example_lookups(source: Source, program: Program, seed: int = 0) -> dict[int, Lookups]:
    """Return the look-ups of a zoo model's seeded inputs; none for a model that we did not write."""
    if not source.examples or not any(map(looks_up, program.blocks)):
        return {}
    return from_inputs(program, typed_inputs(source.examples(seed), program.inputs), source.popularity)


def known_lookups(program: Program) -> dict[int, Lookups]:
    """Return the look-ups of a compiled zoo model, by which the model itself is timed; none for others.

    What a file says of itself is believed where the inputs are those of the model that it names.
    """
    from .. import zoo

    name, dims = program.source.removeprefix(ZOO), program.dims
    if name == program.source or name not in zoo.zoo_names() or not any(map(looks_up, program.blocks)):
        return {}
    need = sum(b.type.size * 8 for b in program.inputs)
    try:
        ours = zoo.input_shapes(name, dims) == {b.name: b.type.shape for b in program.inputs}
    except UserError:
        return {}
    if not ours or need > settings.integer(settings.MEMORY):
        return {}
    given = typed_inputs(zoo.example_inputs(name, dims), program.inputs)
    return from_inputs(program, given, zoo.popularity(name))
