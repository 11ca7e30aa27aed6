"""A small system of small chips, and models to be split over it."""

from __future__ import annotations

from functools import cache

from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.partition.mesh import parse_parallel

from mtia_emu import api
from mtia_emu.options import Options
from mtia_emu.study.accelerator import GraphModel
from mtia_emu.study.system_machine import SystemMachine
from mtia_emu.system.load import load_system


@cache
def model(name: str, options: Options | None = None, **dims: int) -> GraphModel:
    """Return a model of the zoo without weights."""
    with api.open_model(f"zoo:{name}", dims) as source:
        return GraphModel(source.graph(), options or Options(), About(source.name, dims=source.dims))


def machine(parallel: str, system: str = "tiny-board") -> SystemMachine:
    """Return a system on which models are split as a text says."""
    return SystemMachine(load_system(system), parse_parallel(parallel))
