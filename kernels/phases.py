"""The order in which a kernel's commands are issued, declared by name.

A kernel takes its tiles in steps, and each step goes through phases: its loads, its product, its store. All
commands of a phase of a step stand together. Phases of different steps take turns: what has to wait for a
command of its own step is issued some rounds later, behind what later steps load meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Phases:
    """The phases of a round of issue, first to last; each is given how many rounds after its step it comes.

    `Phases(loads=0, store=2, product=1)`: a round issues the loads of one step, then the store of the step
    two before it, then the product of the step before it.
    """

    def __init__(self, **rounds: int) -> None:
        self.rounds = rounds
        self._place = {name: place for place, name in enumerate(rounds)}

    def at(self, phase: str, step: Array | int) -> Any:
        """Return the place of a phase of each step in the order of issue, for `Builder.add`.

        Places are whole numbers: fractions put commands of one phase in order. Equal places keep the order
        in which they are added.
        """
        return (step + self.rounds[phase]) * len(self.rounds) + self._place[phase]
