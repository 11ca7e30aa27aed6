"""Masks of a mixture of experts: values that are zero for all experts but those that a row is routed to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import Match, Node
from .base import scalar

Array = np.ndarray[Any, Any]
ZEROS = 1 << 24  # elements of a constant that is looked through for what is not zero
MASKS = ("scatter_elements", "reduce_sum", "reduce_max")  # ops that masks begin with
DEEP = 12  # nodes that a mask is looked for behind


@dataclass(frozen=True)
class Mask:
    """A value [tokens.., experts] that is zero but at the experts `chosen` [tokens.., each].

    `shares` [tokens.., each], cast to each of the types `casts` in turn, is what it has there, "" where that
    has to be read from it.
    """

    value: str
    chosen: str
    experts: int
    shares: str = ""
    casts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One expert's part of a mask: [tokens.., 1], of the expert of that number."""

    mask: Mask
    expert: int


def mask_of(match: Match, value: str, deep: int = DEEP) -> Mask | None:
    """Return the mask that a value is, or None."""
    node = match.producer(value)
    if node is None or not deep or match.type_of(value).rank < 2:
        return None
    if node.op == "scatter_elements":
        return _scattered(match, node)
    if node.op in MASKS:
        return _one_hot(match, node)
    if node.op == "cast":
        found = mask_of(match, node.inputs[0], deep - 1)
        return None if found is None else _cast(found, node)
    hiding = {"mul": (0, 1), "div": (0,), "where": (0, 1)}.get(node.op, ())
    if node.op == "where" and scalar(match, node.inputs[2]) != 0.0:
        return None
    for at in hiding:
        if match.type_of(node.inputs[at]).shape == node.type.shape:
            found = mask_of(match, node.inputs[at], deep - 1)
            if found is not None:
                return Mask(value, found.chosen, found.experts)
    return None


def _cast(mask: Mask, node: Node) -> Mask:
    """Return the mask behind a cast; shares of one that rounds in its own way are read from it."""
    shares = mask.shares if set(node.attrs) == {"to"} else ""
    return replace(mask, value=node.output, shares=shares, casts=(*mask.casts, node.attrs["to"]))


def _scattered(match: Match, node: Node) -> Mask | None:
    """Zeros with shares put where rows are routed to."""
    zeros, chosen, shares = node.inputs
    const = match.const(zeros)
    last = node.type.rank - 1
    known = const is not None and const.present and const.type.size <= ZEROS
    if const is None or not known or node.attrs["axis"] != last:
        return None
    if node.attrs.get("reduction", "none") not in ("none", "add"):
        return None
    if np.any(const.array(zeros)) or not chooses(match, chosen):
        return None
    if match.type_of(chosen).shape[:-1] != node.type.shape[:-1]:
        return None
    return Mask(node.output, chosen, node.type.shape[-1], shares)


def chooses(match: Match, value: str) -> bool:
    """Return whether a value [.., each] has different experts in a row: those of the largest scores."""
    if match.type_of(value).rank < 2:
        return False
    if match.type_of(value).shape[-1] == 1:
        return True
    node = match.producer(value)
    while node is not None and node.op == "cast":
        value, node = node.inputs[0], match.producer(node.inputs[0])
    return node is not None and node.op == "topk" and value == node.outputs[1] and _last(node)


def _last(node: Node) -> bool:
    return node.attrs["axis"] == node.type.rank - 1


def _one_hot(match: Match, node: Node) -> Mask | None:
    """Return the mask that a sum over a row's choices is, of one-hot vectors times shares or not."""
    before = match.type_of(node.inputs[0])
    if node.attrs["axes"] != (before.rank - 2,) or node.attrs["keepdims"] or before.rank < 3:
        return None
    hot, share = node.inputs[0], ""
    product = match.producer(hot, "mul")
    if product is not None:
        for at in (0, 1):
            each = match.type_of(product.inputs[1 - at]).shape
            if chosen_by(match, product.inputs[at]) and each in (
                before.shape,
                (*before.shape[:-1], 1),
            ):
                hot = product.inputs[at]
                share = (
                    _without_last(match, product.inputs[1 - at])
                    if each[-1] == 1 and node.op == "reduce_sum"
                    else ""
                )
                break
    chosen = chosen_by(match, hot)
    if not chosen or match.type_of(chosen).shape != before.shape[:-1]:
        return None
    return Mask(node.output, chosen, before.shape[-1], share)


def chosen_by(match: Match, hot: str) -> str:
    """Return the experts [.., each] of which a value has the one-hot vectors [.., each, experts], or ""."""
    node = match.producer(hot)
    while node is not None and node.op == "cast":
        node = match.producer(node.inputs[0])
    if node is None:
        return ""
    if node.op == "one_hot":
        values = match.const(node.inputs[1])
        plain = values is not None and values.present and list(values.array(node.inputs[1])) == [0, 1]
        axis = node.attrs.get("axis", -1)
        found = node.inputs[0] if plain and axis in (-1, node.type.rank - 1) else ""
    else:
        found = _compared(match, node) if node.op == "equal" else ""
    inside = bool(found) and 0 < _below(match, found) <= match.type_of(hot).shape[-1]
    return found if inside and chooses(match, found) else ""


def _below(match: Match, chosen: str) -> int:
    """Return the number below which all numbers of experts are, 0 where that is not seen.

    One that is none of the experts, such as the -1 of a row with nothing to do, hides them all.
    """
    node = match.producer(chosen)
    while node is not None and node.op in ("cast", "reshape"):
        chosen, node = node.inputs[0], match.producer(node.inputs[0])
    if node is None or node.op != "topk" or chosen != node.outputs[1]:
        return 0
    return match.type_of(node.inputs[0]).shape[node.attrs["axis"]]


def _compared(match: Match, node: Node) -> str:
    """Return what is compared with the numbers of all experts, "" where it is another comparison."""
    for at in (0, 1):
        numbers = match.const(node.inputs[1 - at])
        size = node.type.shape[-1]
        if numbers is None or not numbers.present or numbers.type.size != size:
            continue
        if numbers.type.shape[-1:] == (size,) and (numbers.array().reshape(-1) == np.arange(size)).all():
            return _without_last(match, node.inputs[at])
    return ""


def _without_last(match: Match, value: str) -> str:
    """Return what a value [.., 1] is a reshape of, without that axis; "" where it is of nothing such."""
    node, shape = match.producer(value, "reshape"), match.type_of(value).shape
    while node is not None:
        value = node.inputs[0]
        if match.type_of(value).shape == shape[:-1]:
            return value
        node = match.producer(value, "reshape")
    return ""


def column_of(match: Match, value: str) -> Column | None:
    """Return the column of a mask that a value [tokens.., 1] is, or None."""
    node, shape = match.producer(value), match.type_of(value).shape
    while node is not None and node.op == "reshape":
        value, node = node.inputs[0], match.producer(node.inputs[0])
    if node is None or not shape:
        return None
    if node.op in ("slice", "gather"):
        mask = mask_of(match, node.inputs[0])
        expert = _picked(match, node)
        fits = mask is not None and match.type_of(mask.value).shape[:-1] == shape[:-1]
        return Column(mask, expert) if mask is not None and fits and expert is not None else None
    if node.op == "reduce_sum" and node.attrs["axes"] == (match.type_of(node.inputs[0]).rank - 1,):
        found = _of_one(match, node.inputs[0])
        return found if found is None or match.type_of(found.mask.chosen).shape[:-1] == shape[:-1] else None
    return None


def _picked(match: Match, node: Node) -> int | None:
    """Return the only place of the last axis that a node takes."""
    last = match.type_of(node.inputs[0]).rank - 1
    if node.op == "gather":
        at = scalar(match, node.inputs[1])
        return int(at) if at is not None and node.attrs["axis"] == last and at >= 0 else None
    starts, before = node.attrs["starts"], match.type_of(node.inputs[0]).shape
    only = node.type.shape == (*before[:-1], 1) and not any(starts[:-1])
    return int(starts[last]) if only else None


def _of_one(match: Match, value: str) -> Column | None:
    """Return the column that the sum over choices of shares * (chosen == expert) is."""
    node = match.producer(value, "mul", "where")
    if node is None:
        return None
    if node.op == "where" and scalar(match, node.inputs[2]) != 0.0:
        return None
    pairs = ((0, 1),) if node.op == "where" else ((0, 1), (1, 0))
    for truth, share in pairs:
        equal = match.producer(node.inputs[truth])
        while equal is not None and equal.op == "cast":
            equal = match.producer(equal.inputs[0])
        if equal is None or equal.op != "equal":
            continue
        for at in (0, 1):
            expert, chosen = scalar(match, equal.inputs[1 - at]), equal.inputs[at]
            shares, count = node.inputs[share], _scored(match, chosen)
            if expert is None or not count or match.type_of(shares).shape != match.type_of(chosen).shape:
                continue
            return Column(Mask(f"{chosen} {shares}", chosen, count, shares), int(expert))
    return None


def _scored(match: Match, chosen: str) -> int:
    """Return among how many experts those of a row are chosen, by their scores; 0 where that is not seen."""
    node = match.producer(chosen)
    while node is not None and node.op == "cast":
        chosen, node = node.inputs[0], match.producer(node.inputs[0])
    seen = node is not None and node.op == "topk" and chosen == node.outputs[1] and _last(node)
    return match.type_of(node.inputs[0]).shape[-1] if node is not None and seen else 0
