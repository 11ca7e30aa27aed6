"""How the nodes of a training step say what they are part of, by the end of their origin."""

from ..graph import Node

BACKWARD = " (backward)"  # a gradient rule made it, or it is made again for one
OPTIMISER = " (optimizer)"  # it changes a weight
GATHERED = ".gathered"  # ends the name of a weight that is whole on a chip while it is read, and no longer


def is_back(node: Node) -> bool:
    """Return whether a node is behind the loss: on the way back, or of the optimiser."""
    return node.origin.endswith((BACKWARD, OPTIMISER))


def mark_of(node: Node | None) -> str:
    """Return the mark that a node's origin ends with, "" for one of the forward pass."""
    return next((m for m in (BACKWARD, OPTIMISER) if node is not None and node.origin.endswith(m)), "")
