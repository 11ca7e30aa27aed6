"""Post-training quantisation: products with weights in few bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from mtia_emu.kernels.rows.tape import Tape, TapeBuilder

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.types import FP32, INT8, DType, TensorType

from ..build import NodeBuilder
from ..codes import FORMATS, LEAST, Codes, block_ranges, block_scales, encode, encode_range, largest
from ..graph import Const, Graph, Match, Node, Rewrite, RuleOutcome, Skip
from ..ops.dequantise import Loads, PackedShape, pack, planes
from ..ops.expert_matmul import ROUTED_PRODUCTS
from .base import Rule, Rules, become, building
from .fuse_maps import splice
from .fuse_tails import product_extras, product_tape

PRODUCTS = ("matmul", "matmul_map")
ACTIVATIONS = ("dynamic", "static", "none")
FINE, COARSE = 5e-2, 0.5  # of an output, estimates: int8 steps are 1/127 of the largest, others up to 1/7
GROUP = 32  # rows to a scale of 4-bit weights: what exporters of 4-bit models write


@dataclass(frozen=True)
class Quantise(Rules):
    """Put the weights of products in few bits, and with them their activations.

    `weights` is int8, int4 or a float of 8 bits, as fp8_e4m3. `activations` are quantised to the same type:
    `dynamic`, a scale a row, found at run time; `static`, a scale a tensor, from the samples that
    `calibrate` names (a number of seeded random ones, or a file .npz of inputs); or `none`: they stay as
    they are, and the weights are expanded on their way to the matrix unit. 4-bit weights have `none`.
    Weights have a scale a column, or one for each `group` rows of a column, which only `none` allows (0:
    none; int4: 32); `zeros` gives 4-bit blocks a zero point as well. Int8 sums are exact in int32; scales,
    bias and activation follow on the tile in fp32. Products of two activations stay as they are, and so do
    those that choose experts. Rows for experts find their scale at run time. Weights that several products
    read are stored once.
    """

    weights: str = "int8"
    activations: str = ""  # dynamic; int4: none
    group: int = 0
    zeros: bool = False
    calibrate: str = "4"

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    def __post_init__(self) -> None:
        if self.weights not in FORMATS:
            raise refuse_unknown("quantise: weights", self.weights, FORMATS)
        if self.activations and self.activations not in ACTIVATIONS:
            raise refuse_unknown("quantise: activations", self.activations, ACTIVATIONS)
        if self.mode != "none" and self.weights == "int4":
            raise UserError(f"quantise: activations={self.mode} has no 4-bit form (right: activations=none)")
        if self.group < 0 or (self.group and self.mode != "none"):
            raise UserError(f"quantise: group={self.group} needs activations=none, and is at least 0")
        if self.zeros and self.weights != "int4":
            raise UserError("quantise: zeros=true is for weights=int4")

    @property
    def mode(self) -> str:
        """Return how activations are quantised, the default made plain."""
        return self.activations or ("none" if self.weights == "int4" else "dynamic")

    @property
    def tolerance(self) -> float:
        return FINE if self.weights == "int8" else COARSE

    @property
    def form(self) -> Codes:
        """Return the format of the weights."""
        return FORMATS[self.weights]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_Quantiser(self).rule,)

    def apply(self, graph: Graph, most: int | None = None) -> tuple[Graph, list[RuleOutcome]]:
        if self.mode != "static":
            return super().apply(graph, most)
        read = {node.name: node.inputs[0] for node in graph.nodes if node.op in PRODUCTS}
        from ..inputs.calibrate import magnitudes, samples_of

        seen = magnitudes(graph, set(read.values()), samples_of(graph, self.calibrate))
        calibrated = {  # floats have steps that grow with them: nothing is gained by cutting off
            name: m.largest if self.form.stored.is_float else m.top(127) for name, m in seen.items()
        }
        bound = _Calibrated(**vars(self), tops={name: calibrated[value] for name, value in read.items()})
        return Rules.apply(bound, graph, most)  # not its own, which would calibrate again


@dataclass(frozen=True)
class _Calibrated(Quantise):
    """The pass with the largest magnitude of each product's left side, by the node's name."""

    tops: Mapping[str, float] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_Quantiser(self, self.tops).rule,)


@dataclass
class _Quantiser:
    """The rule for one graph; `stored` has the weights quantised so far, by old name, `scales` fixed ones."""

    step: Quantise
    tops: Mapping[str, float] = field(default_factory=dict)
    stored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scales: dict[float, str] = field(default_factory=dict)
    routers: set[str] | None = None

    def rule(self, node: Node, match: Match) -> Rewrite | Skip | None:
        """x @ weights, with whatever follows on the tile; x @ weights of chosen experts."""
        if node.op == "expert_matmul":
            return self._experts(node, match)
        if node.op not in PRODUCTS or not match.type_of(node.inputs[0]).dtype.is_float:
            return None
        x, name = node.inputs[:2]
        const, kind = match.const(name), match.type_of(x)
        if const is None or const.type.rank != 2:
            return Skip("its right side is not a weight matrix")
        if 0 in (*const.type.shape, *kind.shape):
            return Skip("it is empty")
        if const.type.dtype.bits <= 8:
            return Skip("its weights have few bits already")
        if node.name in self._routers(match):
            return Skip("it chooses experts: a rounding that makes another choice makes another model")
        b = building(node, match)
        if self.step.mode == "none":
            matrix = self._blocks(b, name, const)
            attrs = dict(node.attrs)
            return become(node, b, b.add(node.op, x, matrix, *node.inputs[2:], fold=False, **attrs))
        codes, columns = self._columns(b, name, const)
        shape = node.type.shape
        rows, scale = self._rows(b, node, shape)
        names, tape = splice(
            _scaled(),
            ("product", scale, columns),
            product_tape(node),
            ("scaled", *product_extras(node)),
            0,
            FP32,
        )
        attrs = {"tape": str(tape), "shape": shape, "to": node.type.dtype.name}
        return become(node, b, b.add("matmul_map", rows, codes, *names[1:], fold=False, **attrs))

    def _routers(self, match: Match) -> set[str]:
        """Return the products, by the node's name, from whose results experts are chosen."""
        if self.routers is None:
            self.routers = set()
            routed = [node for op in ROUTED_PRODUCTS for node in match.nodes(op)]
            pending = [node.inputs[2] for node in routed]
            seen = set(pending)
            while pending:
                maker = match.producer(pending.pop())
                if maker is not None and maker.op in PRODUCTS:
                    self.routers.add(maker.name)
                elif maker is not None:
                    new = [v for v in maker.inputs if v and v not in seen]
                    seen.update(new)
                    pending += new
        return self.routers

    def _experts(self, node: Node, match: Match) -> Rewrite | Skip | None:
        """Quantise rows as they come, and weights with a scale for each column of each expert."""
        x, name, chosen = node.inputs
        const, kind = match.const(name), match.type_of(x)
        if const is None or const.type.dtype.bits <= 8 or 0 in (*const.type.shape, *kind.shape):
            return Skip("its experts' weights are no constant, empty, or of few bits already")
        b, to = building(node, match), self.step.form.stored
        if self.step.mode == "none":
            k, (stored, *points) = const.type.shape[1], self._planes(b, name, const)
            attrs = {"k": k, "block": self._block(k), **node.attrs}
            packed = b.add("expert_matmul_packed", x, stored, chosen, *points, fold=False, **attrs)
            return become(node, b, packed)
        named: dict[str, Any] = {} if to == INT8 else {"to": to.name}
        rows, scales = b.adds("quantise_rows", x, **named)
        codes, columns = self._experts_columns(b, name, const)
        made = b.add("expert_matmul", rows, codes, chosen, fold=False, **node.attrs)
        tokens, each = b.type_of(chosen).shape
        if kind.shape[0] == tokens and each > 1:
            wide = b.add("expand", b.add("reshape", scales, shape=(tokens, 1, 1)), shape=(tokens, each, 1))
            scales = b.add("reshape", wide, shape=(tokens * each, 1))
        own = b.add("gather", columns, b.add("reshape", chosen, shape=(tokens * each,)), axis=0)
        value = b.add("map", made, scales, own, tape=str(_scaled()), to=node.type.dtype.name)
        return become(node, b, value)

    def _experts_columns(self, b: NodeBuilder, name: str, const: Const) -> tuple[str, str]:
        """Return codes [experts, k, n] and scales [experts, n]; they are made when they are read."""
        if name not in self.stored:
            form, (experts, k, n) = self.step.form, const.type.shape
            scales = lru_cache(maxsize=1)(
                lambda: np.concatenate([block_scales(w, k, form) for w in const.array(name)])
            )

            def codes() -> np.ndarray:
                pairs = zip(const.array(name), scales(), strict=True)
                return np.stack([encode(w, row[None, :], k, form) for w, row in pairs])

            kinds = TensorType(form.stored, (experts, k, n)), TensorType(FP32, (experts, n))
            self.stored[name] = (
                b.put(b.fresh(f"{name}.{form.name}"), Const(kinds[0], codes if const.present else None)),
                b.put(b.fresh(f"{name}.scale"), Const(kinds[1], scales if const.present else None)),
            )
        codes_name, row_name = self.stored[name]
        return codes_name, row_name

    def _rows(self, b: NodeBuilder, node: Node, shape: tuple[int, ...]) -> tuple[str, str]:
        """Return the left side in the type of the weights, and its scale, which broadcasts to a shape."""
        x, to = node.inputs[0], self.step.form.stored
        if self.step.mode == "static":
            scale = max(self.tops[node.name], LEAST) / largest(to)
            level = b.add("map", x, tape=str(_fixed(scale, to)), to=to.name)
            if scale not in self.scales:
                self.scales[scale] = b.constant(np.asarray([scale], np.float32))
            return level, self.scales[scale]
        named: dict[str, Any] = {} if to == INT8 else {"to": to.name}
        rows, scales = b.adds("quantise_rows", x, **named)
        kind = b.type_of(x)
        if len(shape) != kind.rank or shape[:-1] != kind.shape[:-1]:  # the product is seen in another shape
            scales = b.add("reshape", scales, shape=(*shape[:-1], 1))
        return rows, scales

    def _columns(self, b: NodeBuilder, name: str, const: Const) -> tuple[str, str]:
        """Return codes and the scales of columns; they are made when they are read."""
        if name not in self.stored:
            form, (k, n) = self.step.form, const.type.shape
            scales = lru_cache(maxsize=1)(lambda: block_scales(const.array(name), k, form))
            codes = Const(
                TensorType(form.stored, (k, n)),
                (lambda: encode(const.array(name), scales(), k, form)) if const.present else None,
            )
            row = Const(TensorType(FP32, (n,)), (lambda: scales()[0]) if const.present else None)
            self.stored[name] = (
                b.put(b.fresh(f"{name}.{form.name}"), codes),
                b.put(b.fresh(f"{name}.scale"), row),
            )
        codes_name, row_name = self.stored[name]
        return codes_name, row_name

    def _blocks(self, b: NodeBuilder, name: str, const: Const) -> str:
        """Return the weights as a `dequantise` of codes in blocks."""
        k, _ = const.type.shape
        return b.add("dequantise", *self._planes(b, name, const), k=k, block=self._block(k))

    def _block(self, k: int) -> int:
        """Return how many of k rows share a scale."""
        return min(self.step.group or (GROUP if self.step.weights == "int4" else k), k)

    def _planes(self, b: NodeBuilder, name: str, const: Const) -> tuple[str, ...]:
        """Return codes, scales and maybe zero points of weights [k, n], or [experts, k, n], in blocks."""
        if name not in self.stored:
            *of, k, n = const.type.shape
            form = PackedShape(k, n, self._block(k), self.step.form.stored, of[0] if of else 0)
            make, zeros = (_ranged if self.step.zeros else _symmetric), self.step.zeros

            def loads_of(matrix: Const) -> Loads:
                return make(matrix, name, form, self.step.form)

            loads = _stacked(const, name, loads_of, zeros=zeros) if of else loads_of(const)
            self.stored[name] = tuple(planes(b, name, form, const.type.dtype, loads, const.present))
        return self.stored[name]


def _stacked(const: Const, name: str, loads_of: Callable[[Const], Loads], *, zeros: bool) -> Loads:
    """Return what makes codes, scales and, with `zeros`, zero points of a matrix for each expert."""
    kind = TensorType(const.type.dtype, const.type.shape[1:])

    def load(part: int) -> Callable[[], np.ndarray]:
        def made(matrix: np.ndarray) -> np.ndarray:
            loader = loads_of(Const(kind, matrix))[part]
            assert loader is not None
            return loader()

        return lambda: np.stack([made(matrix) for matrix in const.array(name)])

    return load(0), load(1), load(2) if zeros else None


def _symmetric(const: Const, name: str, form: PackedShape, codes: Codes) -> Loads:
    """Return what makes codes and scales in the weights' own type, to which the codes are fitted."""
    to = const.type.dtype

    @lru_cache(maxsize=1)
    def scales() -> np.ndarray:
        return _held(block_scales(const.array(name), form.block, codes), to)

    def codes_of_weights() -> np.ndarray:
        encoded = encode(const.array(name), scales().astype(np.float32), form.block, codes)
        return pack(encoded, form.block) if codes.name == "int4" else encoded

    return codes_of_weights, scales, None


def _ranged(const: Const, name: str, form: PackedShape, codes: Codes) -> Loads:
    """Return what makes codes of 4 bits, scales in the weights' own type, and zero points."""
    to = const.type.dtype

    @lru_cache(maxsize=1)
    def both() -> tuple[np.ndarray, np.ndarray]:
        scales, zeros = block_ranges(const.array(name), form.block)
        return _held(scales, to), zeros

    def codes_of_weights() -> np.ndarray:
        scales, zeros = both()
        return pack(encode_range(const.array(name), scales.astype(np.float32), zeros, form.block), form.block)

    return codes_of_weights, lambda: both()[0], lambda: pack(both()[1], 1)


def _held(scales: np.ndarray, to: DType) -> np.ndarray:
    """Return scales of any shape in a type, none of them 0."""
    least = np.finfo(np.float16).tiny if to.name == "fp16" else np.float32(LEAST)
    return np.where(np.abs(scales) < least, least, scales).astype(to.numpy)


def _scaled() -> Tape:
    """Return product * row's scale * column's scale."""
    t = TapeBuilder(3)
    return t.done(t.call("mul", t.call("mul", 0, 1), 2))


def _fixed(scale: float, to: DType) -> Tape:
    """Return x / scale within the type's largest numbers, whole for integers."""
    t, most = TapeBuilder(1), largest(to)
    level = t.call("mul", 0, 1.0 / scale)
    if not to.is_float:
        level = t.call("round", level)
    return t.done(t.call("min", t.call("max", level, -most), most))
