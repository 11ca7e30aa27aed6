"""What becomes of the last dimension of a product: heads, a norm of all of it, or a choice among it."""

from __future__ import annotations

from ..graph import Graph, Node
from ..ops.expert_matmul import ROUTED_PRODUCTS

NORMS = ("rmsnorm", "layernorm")
FAR = 96  # values behind a product among which its norm, or the choice of experts, is looked for
CHOSEN = 2  # the operand of a product with experts that says which experts
SQUARES = ("cast", "mul", "pow")
STOPS = ("matmul", *ROUTED_PRODUCTS, "attention")


def units(graph: Graph, node: Node) -> int:
    """Return the pieces that the last dimension of a product is later cut into: heads; 0 of none.

    1 where it is not to be split: pieces of different sizes are taken of it, it is normed for products, as
    latents of multi-head latent attention are, or it chooses experts. Split, it would be gathered for that.
    """
    if node.op != "matmul":
        return 0
    if _is_latent(graph, node.output) or _is_router(graph, node):
        return 1
    value, size = node.output, node.type.shape[-1] if node.type.rank else 0
    for _ in range(8):
        users = graph.users(value)
        for user, _ in users:
            if user.op == "slice" and user.type.shape[-1] != size:
                return 1
            if user.op == "reshape" and user.type.rank > graph.type_of(value).rank:
                return 1 if _is_one_head(graph, user, size) else _heads(user.type.shape, size)
        if len(users) != 1 or users[0][0].op not in ("add", "mul", "cast", "reshape"):
            return 0
        value = users[0][0].output
    return 0


def _heads(shape: tuple[int, ...], size: int) -> int:
    """Return the first of the dimensions that the last one of so many elements is cut into; 0 of none."""
    product, first = 1, 0
    for length in reversed(shape):
        product, first = product * length, length
        if product >= size:
            return first if product == size and first != size else 0
    return 0


def _is_one_head(graph: Graph, node: Node, size: int) -> bool:
    """Return whether a reshape makes one head of all columns, which then changes places with the sequence."""
    turned = any(user.op == "transpose" for user, _ in graph.users(node.output))
    return turned and node.type.shape[-2:] == (1, size)


def _is_latent(graph: Graph, value: str) -> bool:
    """Return whether a value is normed over its last dimension and read by products alone."""
    pending, seen, normed, read = [value], {value}, False, False
    while pending and len(seen) < FAR:
        for user, _ in graph.users(pending.pop()):
            if user.op == "matmul" and user.inputs[1] in graph.consts:
                read = True
                continue
            if user.op in ("reshape", "transpose", "slice", "matmul"):
                return False
            normed |= user.op in NORMS or _is_mean(user)
            new = [v for v in user.outputs if v not in seen]
            pending += new
            seen.update(new)
    return normed and read and not pending


def _is_router(graph: Graph, node: Node) -> bool:
    """Return whether a product decides to which experts rows go."""
    pending, seen = [node.output], {node.output}
    while pending and len(seen) < FAR:
        value = pending.pop(0)  # the nearest first: what experts make goes far
        for user, place in graph.users(value):
            if user.op in ROUTED_PRODUCTS and place == CHOSEN:
                return True
            if user.op not in STOPS:
                new = [v for v in user.outputs if v not in seen]
                pending += new
                seen.update(new)
    return False


def _is_mean(node: Node) -> bool:
    """Return whether a node is a mean over the last dimension."""
    rank = node.type.rank if node.attrs.get("keepdims") else 0
    return node.op == "reduce_mean" and bool(rank) and [a % rank for a in node.attrs["axes"]] == [rank - 1]


def is_normed(graph: Graph, value: str) -> bool:
    """Return whether a value is normed over its last dimension as it is."""
    for _ in range(3):  # a cast, a square, their mean
        users = [user for user, _ in graph.users(value)]
        if any(user.op in NORMS or _is_mean(user) for user in users):
            return True
        value = next((user.output for user in users if user.op in SQUARES), "")
    return False
