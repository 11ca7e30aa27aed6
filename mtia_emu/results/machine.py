"""The door to all that runs models: what is asked of a machine, and what a machine answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..types import Work, WorkGroup
from .report import Report


class Computation(Protocol):
    """A model at fixed sizes, whatever runs it: a compiled `Program`, or a graph that is yet to be compiled.

    `works` is what each operator must do, `groups` which of it a serving runtime does in one kernel, `dtype`
    the number format that they run in, `state` how a run finds the machine (`options.COLD` or `WARM`).
    """

    @property
    def model(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def dims(self) -> Mapping[str, int]: ...

    @property
    def works(self) -> tuple[Work, ...]: ...

    @property
    def groups(self) -> tuple[WorkGroup, ...]: ...

    @property
    def state(self) -> str: ...


class Machine(Protocol):
    """What says how long a computation takes and what it costs: a chip, a GPU, or what else can tell.

    Whoever holds a machine never asks which kind it is.
    """

    @property
    def name(self) -> str: ...

    def report(self, work: Computation, /) -> Report:
        """Return the report of one run. Raises `UserError` for a computation that it cannot run."""
