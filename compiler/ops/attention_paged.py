"""Attention of onnxruntime's domain over caches in pages, which a block table names for each sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mtia_emu.errors import UserError

from .attention import Scores, attend
from .rotary import rotate, rotate_pairs
from .shapes import take
from .spelling import Call, Unsupported, bounded, counted, onnx

KEY_CACHE, VALUE_CACHE, ENDS, PAST, TABLE, COS, SIN, SLOTS, SINK, KEY_NORM = 3, 4, 5, 6, 7, 8, 9, 10, 11, 13


def paged_states(nodes: Iterable[Any]) -> dict[str, str]:
    """Return, of ONNX nodes, the caches in pages: the cache behind a step, at the one before, one for each.

    The operator changes them in place: both are one memory.
    """
    paged = [n for n in nodes if (n.domain, n.op_type) == ("com.microsoft", "PagedAttention")]
    pairs = [p for n in paged for p in zip(n.input[KEY_CACHE : VALUE_CACHE + 1], n.output[1:3], strict=False)]
    return {new: old for old, new in dict(pairs).items() if new}


@dataclass(frozen=True)
class PagedTokens:
    """The tokens of a call, those of one sequence behind those of the one before.

    `sequence` and `position` are int64[tokens]: which sequence each is of, and how many tokens come before it
    there. `table` is int64[sequences, pages]; a page that is not there is negative. `lengths` are the tokens
    of each sequence, None where only the data tell; `pages` are those that its tokens reach, or all.
    """

    sequence: str
    position: str
    table: str
    lengths: tuple[int, ...] | None
    pages: tuple[int, ...]


@dataclass(frozen=True)
class PagedPart:
    """Sequences of equal length: queries [n,h,s,d], their positions [n,1,s,1], their pages [n,pages]."""

    queries: str
    positions: str
    table: str


@onnx("com.microsoft::PagedAttention")
def _paged(c: Call) -> tuple[str, str, str]:
    """Return the attention [tokens, h*d], and the caches with the keys and values of the tokens in them."""
    _refuse(c)
    q, k, v = _split(c)
    at = _packed(c, c.type(q).shape[0])
    q, k = (_turned(c, _normed(c, x, i), at) for x, i in ((q, KEY_NORM - 1), (k, KEY_NORM)))
    slots = _slots(c, at)
    keys, values = (_written(c, c[i], x, slots) for i, x in ((KEY_CACHE, k), (VALUE_CACHE, v)))
    parts = [_attend(c, part, keys, values) for part in _parts(c, q, at)]
    return (parts[0] if len(parts) == 1 else c.add("concat", *parts, axis=0)), keys, values


def _refuse(c: Call) -> None:
    """Raise `Unsupported` for caches that are quantised or latent, and for what only they or drafters use."""
    layout, causal = c.attr("kv_cache_layout", "SEPARATE"), c.attr("is_causal", 1)
    quantised = any(c.attr(f"{x}_quant_type", "NONE") != "NONE" for x in "kv")
    if layout != "SEPARATE" or quantised or not causal or c.attr("rotary_offset", 0):
        raise Unsupported("its cache is latent or quantised, its mask not causal, or its rotation offset")
    cache, table = c.type(KEY_CACHE), c.type(TABLE)
    fits = cache.rank == 4 and table.rank == 2 and 0 not in (*cache.shape, *table.shape)
    batch = table.shape[0] if table.rank else 0
    if not fits or c.type(VALUE_CACHE).shape != cache.shape or c.type(ENDS).shape != (batch + 1,):
        raise UserError(
            f"{c.op}: caches {cache} and {c.type(VALUE_CACHE)}, lengths {c.type(ENDS)} and a table {table} "
            "do not fit (right: [blocks, block size, heads, size], twice, [batch + 1] and [batch, pages])"
        )
    if c.type(PAST).shape != (batch,):
        raise UserError(f"{c.op}: past lengths {c.type(PAST)} are not one for each of {batch} sequences")


def _split(c: Call) -> tuple[str, str, str]:
    """Return q, k, v as [tokens, heads, size], from three operands or from one that packs them."""
    heads, groups, size = c.attr("num_heads", 0), c.attr("kv_num_heads", 0), c.type(KEY_CACHE).shape[3]
    counts = (heads, groups, groups)
    widths = [n * size for n in (counts if c.has(1) else (heads + 2 * groups,))]
    operands = [c[i] for i in range(len(widths))]
    tokens = c.type(0).shape[:1]
    if any(c.type(x).shape != (*tokens, w) for x, w in zip(operands, widths, strict=True)):
        seen = ", ".join(str(c.type(x)) for x in operands)
        raise UserError(f"{c.op}: operands {seen} are not [tokens, n] with n of {widths}")
    if groups != c.type(KEY_CACHE).shape[2]:
        raise UserError(f"{c.op}: {groups} heads of keys do not fit the cache {c.type(KEY_CACHE)}")
    if not c.has(1):
        ends = np.cumsum([0, *counts]) * size
        operands = [take(c, c[0], 1, low, high) for low, high in pairwise(ends.tolist())]
    q, k, v = (c.reshape(x, (*tokens, n, size)) for x, n in zip(operands, counts, strict=True))
    return q, k, v


def _packed(c: Call, tokens: int) -> PagedTokens:
    """Return of which sequence each token is, and where; raise `Unsupported` where the work depends on it."""
    batch, pages = c.type(TABLE).shape
    ends, past = (c.cast(c[i], "int64") for i in (ENDS, PAST))
    at = c.constant(counted(tokens))
    sequence = c.constant(np.zeros(tokens, np.int64))
    if batch > 1:
        bounded(tokens * batch)
        begins = c.reshape(take(c, ends, 0, 1, batch), (1, batch - 1))
        begun = c.add("less_equal", begins, c.reshape(at, (tokens, 1)))
        sequence = c.add("reduce_sum", c.cast(begun, "int64"), axes=(1,), keepdims=False)
    shift = c.add("sub", past, take(c, ends, 0, 0, batch))
    position = c.add("add", at, c.add("gather", shift, sequence, axis=0))
    known, before = c.builder.known(ends), c.builder.known(past)
    lengths = tuple(np.diff(known).tolist()) if known is not None else (tokens,) if batch == 1 else None
    if lengths is not None and (sum(lengths) != tokens or min(lengths) < 0):
        raise UserError(f"{c.op}: sequences of {list(lengths)} tokens are not the {tokens} that there are")
    reached = (pages,) * batch
    if lengths is not None and before is not None:
        block = c.type(KEY_CACHE).shape[1]
        reached = tuple(-(-(n + int(b)) // block) for n, b in zip(lengths, before, strict=True))
        if max(reached) > pages or before.min() < 0:
            raise UserError(f"{c.op}: {before.tolist()} past tokens do not fit {pages} pages of {block}")
    return PagedTokens(sequence, position, c.cast(c[TABLE], "int64"), lengths, reached)


def _normed(c: Call, x: str, weight: int) -> str:
    if not c.has(weight):
        return x
    return c.add("rmsnorm", x, c[weight], epsilon=c.attr("qk_norm_epsilon", 1e-6))


def _turned(c: Call, x: str, at: PagedTokens) -> str:
    """Return [tokens, heads, size] turned by the tokens' positions, where the call rotates."""
    if not c.attr("do_rotary", 0):
        return x
    tokens, half = c.type(x).shape[0], c.type(COS).shape[-1]
    cos, sin = (c.reshape(c.add("gather", c[i], at.position, axis=0), (tokens, 1, half)) for i in (COS, SIN))
    return (rotate_pairs if c.attr("rotary_interleaved", 0) else rotate)(c, x, cos, sin, 2 * half)


def _slots(c: Call, at: PagedTokens) -> str:
    """Return which row of all pages' rows each token's key and value go to."""
    if c.has(SLOTS):
        given = c.known(SLOTS, "slots")
        if given.min(initial=0) < 0:
            raise Unsupported("it leaves tokens out of the cache (slots of -1)")
        return c.cast(c[SLOTS], "int64")
    (batch, pages), block = c.type(at.table).shape, c.type(KEY_CACHE).shape[1]
    page = c.add("div", at.position, c.scalar(block, at.position))
    inside = c.add("mod", at.position, c.scalar(block, at.position))
    entry = c.add("add", c.add("mul", at.sequence, c.scalar(pages, at.sequence)), page)
    block_at = c.add("gather", c.reshape(at.table, (batch * pages,)), entry, axis=0)
    return c.add("add", c.add("mul", block_at, c.scalar(block, block_at)), inside)


def _written(c: Call, cache: str, new: str, slots: str) -> str:
    """Return a cache [blocks, block size, heads, size] with new[tokens, heads, size] at their slots."""
    blocks, block, heads, size = c.type(cache).shape
    rows = c.reshape(cache, (blocks * block, heads * size))
    updates = c.reshape(new, (c.type(new).shape[0], heads * size))
    return c.reshape(c.add("scatter_rows", rows, slots, updates), (blocks, block, heads, size))


def _parts(c: Call, q: str, at: PagedTokens) -> list[PagedPart]:
    """Return what is multiplied at once: all sequences where they are alike, else one at a time.

    As many tokens as sequences, of lengths that only the data tell, are each taken with its sequence's pages:
    a step of decoding, and right for any other lengths too.
    """
    tokens = c.type(q).shape[0]
    batch = len(at.pages)
    if at.lengths is None:
        if tokens != batch:
            raise Unsupported(
                f"how its {tokens} tokens are shared by {batch} sequences, %{c[ENDS]}, depends on the data "
                "(it must be a constant, or one token a sequence)",
                c[ENDS],
            )
        return [_part(c, q, at.position, c.add("gather", at.table, at.sequence, axis=0), tokens)]
    if len(set(zip(at.lengths, at.pages, strict=True))) == 1:
        return [_part(c, q, at.position, take(c, at.table, 1, 0, at.pages[0]), batch)]
    ends = np.cumsum([0, *at.lengths]).tolist()
    return [
        _part(
            c,
            take(c, q, 0, low, high),
            take(c, at.position, 0, low, high),
            take(c, take(c, at.table, 0, i, i + 1), 1, 0, at.pages[i]),
            1,
        )
        for i, (low, high) in enumerate(pairwise(ends))
        if low < high
    ]


def _part(c: Call, q: str, position: str, table: str, count: int) -> PagedPart:
    tokens, heads, size = c.type(q).shape
    each = tokens // count
    rows = c.add("transpose", c.reshape(q, (count, each, heads, size)), perm=(0, 2, 1, 3))
    return PagedPart(rows, c.reshape(position, (count, 1, each, 1)), table)


def _attend(c: Call, part: PagedPart, keys: str, values: str) -> str:
    """Return the attention of a part's tokens, [tokens, h*d], over the pages of its sequences."""
    count, heads, each, size = c.type(part.queries).shape
    scores = Scores(
        c.attr("scale", 0.0) or size**-0.5,
        _seen(c, part, c.type(keys).shape[1]),
        softcap=c.attr("softcap", 0.0),
        sink=c.optional(SINK),
    )
    read = c.add("max", part.table, c.scalar(0, part.table))
    k, v = (_pages(c, x, read) for x in (keys, values))
    found = c.add("transpose", attend(c, part.queries, k, v, scores), perm=(0, 2, 1, 3))
    return c.reshape(found, (count * each, heads * size))


def _pages(c: Call, cache: str, table: str) -> str:
    """Return the rows of the pages of each sequence, [n, heads, rows, size]."""
    (count, pages), (_, block, heads, size) = c.type(table).shape, c.type(cache).shape
    rows = c.reshape(c.add("gather", cache, table, axis=0), (count, pages * block, heads, size))
    return c.add("transpose", rows, perm=(0, 2, 1, 3))


def _seen(c: Call, part: PagedPart, block: int) -> str:
    """Return which keys each token sees, [n,1,s,rows]: up to its own, in its window, of pages there are."""
    count, pages = c.type(part.table).shape
    key = c.constant(counted(pages * block).reshape(1, 1, 1, -1))
    seen, window = c.add("less_equal", key, part.positions), c.attr("local_window_size", -1)
    if window >= 0:
        first = c.add("sub", part.positions, c.scalar(window, part.positions))
        seen = c.add("and", seen, c.add("greater", key, first))
    table = c.builder.known(part.table)
    if table is None or table.min() < 0:
        there = c.reshape(c.add("greater_equal", part.table, c.scalar(0, part.table)), (count, pages, 1))
        there = c.add("expand", there, shape=(count, pages, block))
        seen = c.add("and", seen, c.reshape(there, (count, 1, 1, pages * block)))
    return seen
