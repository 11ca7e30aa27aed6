"""Collectives between the GPUs of a node: over rings of links, or by reading the memory of peers."""

from __future__ import annotations

import numpy as np

from ..errors import UserError, refuse_unknown
from .facts import Facts, Links

Array = np.ndarray
REDUCE = "all_reduce"
PASSES = {"all_gather": 1, "reduce_scatter": 1, "alltoall": 1, REDUCE: 2}
"""How often a message goes round the ring: an all-reduce is a reduce-scatter and an all-gather."""


def seconds(links: Links, kind: str, message_bytes: Array | float, gpus: Array | int) -> Array:
    """Return the time of a collective of the library, in seconds; `message_bytes` are one GPU's whole tensor.

    Bytes and GPUs are of shapes that broadcast; the result is of their common shape. Each GPU sends
    (gpus - 1) / gpus of the message a pass. The library takes the better of two protocols: one with little
    latency and little bandwidth, one with the links' bandwidth and more to set up.
    """
    if kind not in PASSES:
        raise refuse_unknown("collective", kind, PASSES)
    passes = PASSES[kind]
    count = np.asarray(gpus, float)
    moved = passes * np.asarray(message_bytes, float) * (count - 1) / count
    start = links.latency_s + links.hop_s * passes * (count - 1)
    small = start + moved / links.small_bytes_per_s
    large = start + links.large_s + moved / (links.bytes_per_s * links.efficiency)
    return np.minimum(small, large)


def direct_seconds(links: Links, message_bytes: Array | float, gpus: Array | int) -> Array:
    """Return the time of a serving runtime's all-reduce, in seconds, infinite where it has none.

    Shapes are as of `seconds`. In one shot each GPU reads the whole message of each other one; in two it
    reduces its own part, then reads the others' (TensorRT-LLM and vLLM, customAllReduce kernels).
    """
    count, size = np.asarray(gpus, float), np.asarray(message_bytes, float)
    if links.direct is None:
        return np.full(np.broadcast_shapes(count.shape, size.shape), np.inf)
    d = links.direct
    start, speed = d.start_s + d.peer_s * (count - 1), links.bytes_per_s * d.efficiency
    one = start + (count - 1) * size / speed
    return np.minimum(one, start + d.two_shot_s + 2 * (count - 1) / count * size / speed)


def collective_seconds(facts: Facts, kind: str, message_bytes: int, gpus: int) -> float:
    """Return the time of one collective between `gpus` GPUs; raise `UserError` where there are no links.

    An all-reduce is the faster of the library's and the serving runtime's.
    """
    if facts.links is None:
        raise UserError(f"{facts.name} has no [links]; its file gives none")
    if gpus < 2:
        raise UserError(f"a collective of {gpus} GPUs; it takes 2 or more")
    if message_bytes < 0:
        raise UserError(f"a message of {message_bytes} bytes; it has 0 or more")
    library = float(seconds(facts.links, kind, message_bytes, gpus))
    return (
        min(library, float(direct_seconds(facts.links, message_bytes, gpus))) if kind == REDUCE else library
    )
