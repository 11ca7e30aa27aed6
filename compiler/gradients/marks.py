"""How the nodes of a training step say what they are part of, by the end of their origin."""

BACKWARD = " (backward)"  # a gradient rule made it, or it is made again for one
OPTIMISER = " (optimizer)"  # it changes a weight
