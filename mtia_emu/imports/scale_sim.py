"""SCALE-Sim's configuration and topology as a chip's file and an ONNX model.

A word of theirs is an fp16 element of ours: sizes and bandwidths in words become twice as many bytes.
Source of both formats: SCALE-Sim 3.0.0, scale_config.py and topology_utils.py.
"""

from __future__ import annotations

import configparser
import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..machine.units.systolic import systolic_cycles
from ..zoo.writer import ModelWriter

MAX_BYTES = 1 << 20
MAX_LAYERS, MAX_SIZE, MAX_ELEMENTS = 10_000, 1 << 24, 1 << 46
CLOCK_HZ = 1e9  # SCALE-Sim counts cycles: any clock gives the same
WORD_BYTES = 2
KILO = 1024  # SCALE-Sim's kB, of words
ARCHITECTURE, PRESETS, GENERAL = "architecture_presets", "run_presets", "general"
FLOWS = ("os", "ws", "is")
INTERFACES = 3  # inputs, filters, outputs: each has the bandwidth
DEPTHWISE = "DP"  # in a layer's name
GEMM_COLUMNS, CONV_COLUMNS = 4, 8


@dataclass(frozen=True)
class SystolicArray:
    """What a configuration says of the machine.

    `scratchpads` are words of inputs, filters and outputs; `bandwidth` is words a cycle of each interface,
    None where SCALE-Sim works it out.
    """

    name: str
    rows: int
    cols: int
    dataflow: str
    scratchpads: tuple[int, int, int]
    bandwidth: int | None


@dataclass(frozen=True)
class TopologyLayer:
    """A layer of a topology: a product [m, k] x [k, n], or a convolution that comes to one.

    `image` is height, width and channels; `kernel` height, width and filters; `strides` down and across. A
    product has an image of m x 1 of k channels. With `groups` each channel has its own filters.
    """

    name: str
    image: tuple[int, int, int]
    kernel: tuple[int, int, int]
    strides: tuple[int, int] = (1, 1)
    groups: int = 1
    is_product: bool = False

    @property
    def out(self) -> tuple[int, int]:
        """Return height and width of the result; a window that hangs over the end counts."""
        down, across = (
            math.ceil((i - f) / s) + 1
            for i, f, s in zip(self.image[:2], self.kernel[:2], self.strides, strict=True)
        )
        return down, across

    @property
    def product(self) -> tuple[int, int, int]:
        """Return m, k and n of the product that one group comes to."""
        inner = self.image[2] // self.groups
        return math.prod(self.out), self.kernel[0] * self.kernel[1] * inner, self.kernel[2]

    @property
    def on_simd(self) -> bool:
        """Return whether the compiler has no product for the array: one filter for each of many channels."""
        return self.groups > 1 and self.kernel[2] == 1

    @property
    def macs(self) -> int:
        """Return its multiply-adds."""
        return self.groups * math.prod(self.product)

    def array_cycles(self, array: SystolicArray) -> int:
        """Return the cycles that the array alone takes, folds one after another, as SCALE-Sim counts them."""
        m, k, n = self.product
        flow = array.dataflow
        return self.groups * systolic_cycles(m, k, n, rows=array.rows, cols=array.cols, dataflow=flow)


def read_array(path: Path) -> SystolicArray:
    """Return the machine of a configuration file; raise `UserError` for what is missing or wrong."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(path))
    except configparser.Error as error:
        raise UserError(f"{path}: no SCALE-Sim configuration: {' '.join(str(error).split())[:200]}") from None

    def value(key: str, section: str = ARCHITECTURE) -> str:
        found = parser.get(section, key, fallback=None)
        if found is None:
            raise UserError(f"{path}: [{section}] has no {key}")
        return found.strip()

    def size(key: str) -> int:
        return _size(value(key), f"{path}: {key}")

    flow = value("Dataflow").lower()
    if flow not in FLOWS:
        raise UserError(f"{path}: Dataflow is {flow[:20]!r} (right: {', '.join(FLOWS)})")
    limited = value("InterfaceBandwidth", PRESETS).upper()
    if limited not in ("CALC", "USER"):
        raise UserError(f"{path}: InterfaceBandwidth is {limited[:20]!r} (right: CALC or USER)")
    bandwidth = value("Bandwidth").split(",")[0] if limited == "USER" else None
    return SystolicArray(
        name=_plain(value("run_name", GENERAL)),
        rows=size("ArrayHeight"),
        cols=size("ArrayWidth"),
        dataflow=flow,
        scratchpads=(
            size("IfmapSramSzkB") * KILO,
            size("FilterSramSzkB") * KILO,
            size("OfmapSramSzkB") * KILO,
        ),
        bandwidth=_size(bandwidth, f"{path}: Bandwidth") if bandwidth is not None else None,
    )


def read_topology(path: Path) -> list[TopologyLayer]:
    """Return the layers of a topology, products or convolutions by its number of columns.

    Raises `UserError` for a line that is neither, naming it, and for a topology without layers.
    """
    layers: list[TopologyLayer] = []
    try:
        lines = iter(list(csv.reader(_text(path).splitlines())))
    except csv.Error as error:
        raise UserError(f"{path}: no SCALE-Sim topology: {error}") from None
    columns = len(_filled(next(lines, [])))
    for number, line in enumerate(lines, 2):
        cells = _filled(line)
        if not cells:
            continue
        where = f"{path}: line {number}"
        if len(layers) == MAX_LAYERS:
            raise UserError(f"{where}: more than {MAX_LAYERS} layers")
        layer = _product(cells, where) if columns < CONV_COLUMNS else _convolution(cells, where)
        if max(layer.macs, *map(math.prod, (layer.image, layer.kernel))) > MAX_ELEMENTS:
            raise UserError(f"{where}: {layer.name} is too large")
        layers.append(layer)
    if not layers:
        raise UserError(f"{path}: no layers (right: a SCALE-Sim topology, a header and a line a layer)")
    return layers


def _product(cells: Sequence[str], where: str) -> TopologyLayer:
    """Return a line of name, M, N and K."""
    if len(cells) < GEMM_COLUMNS:
        raise UserError(f"{where}: {len(cells)} cells (right: Layer, M, N, K)")
    _dense(cells[GEMM_COLUMNS:], where)
    m, n, k = (_size(cell, where) for cell in cells[1:GEMM_COLUMNS])
    return TopologyLayer(_plain(cells[0]), (m, 1, k), (1, 1, n), is_product=True)


def _convolution(cells: Sequence[str], where: str) -> TopologyLayer:
    """Return a line of name, image, filter, channels, filters and stride."""
    if len(cells) < CONV_COLUMNS:
        names = "name, IFMAP height, width, filter height, width, channels, filters, stride"
        raise UserError(f"{where}: {len(cells)} cells (right: {names})")
    _dense(cells[CONV_COLUMNS:], where)
    height, width, down, across, channels, filters, stride = (
        _size(cell, where) for cell in cells[1:CONV_COLUMNS]
    )
    if down > height or across > width:
        raise UserError(f"{where}: a filter of {down} x {across} in an image of {height} x {width}")
    groups = channels if DEPTHWISE in cells[0] else 1
    name, image = _plain(cells[0]), (height, width, channels)
    return TopologyLayer(name, image, (down, across, filters), (stride, stride), groups)


def _dense(rest: Sequence[str], where: str) -> None:
    """Refuse a layer with sparse filters."""
    for cell in rest:
        kept, _, of = cell.partition(":")
        if kept.strip() != of.strip():
            raise UserError(f"{where}: {cell[:20]!r}: sparse filters are not imported (right: 1:1, or none)")


def _filled(cells: Sequence[str]) -> list[str]:
    """Return the cells of a line without the empty ones at its end."""
    kept = [cell.strip() for cell in cells]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _size(text: str, where: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= MAX_SIZE):
        raise UserError(f"{where}: {text[:20]!r} (right: an integer from 1 to {MAX_SIZE})")
    return int(text)


def _plain(text: str) -> str:
    """Return a name with all but letters, digits and a few signs as `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text.strip().strip('"'))[:80] or "layer"


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes (right: at most {MAX_BYTES})")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None


def chip_text(array: SystolicArray) -> str:
    """Return the text of a chip's file: one bare array whose scratchpads are its local memory.

    DRAM has the bandwidth of the three interfaces together, or is ideal where SCALE-Sim works bandwidths out.
    """
    words = sum(array.scratchpads)
    lines = [
        "# What is not here is as in the base, with ideal memories: `mtia-emu chips FILE` lists all.",
        f'name = "{array.name}"',
        'base = "systolic"',
        f"clock_hz = {CLOCK_HZ:g}  # nominal: SCALE-Sim counts cycles",
        "",
        "[pe.matrix]",
        f"rows = {array.rows}  # ArrayHeight",
        f"cols = {array.cols}  # ArrayWidth",
        f'dataflow = "{array.dataflow}"  # Dataflow',
        "",
        "[pe.local]",
        f"bytes = {words * WORD_BYTES}  # IfmapSramSzkB + FilterSramSzkB + OfmapSramSzkB, a word 2 B",
    ]
    if array.bandwidth is not None:
        each = array.bandwidth * WORD_BYTES * CLOCK_HZ
        lines += [
            "",
            "[dram]",
            f"channels = {INTERFACES}  # inputs, filters and outputs: any of them may use all",
            f"channel_bytes_per_s = {each:g}  # Bandwidth, in words a cycle",
        ]
    return "\n".join(lines) + "\n"


def write_model(layers: Sequence[TopologyLayer], path: Path) -> None:
    """Write an ONNX model without weights, whose layers do not depend on each other."""
    writer = ModelWriter(path.stem)
    for number, layer in enumerate(layers):
        name = f"{number}.{layer.name}"
        if layer.is_product:
            (m, _, k), n = layer.image, layer.kernel[2]
            x = writer.input(f"{name}.in", np.float16, m, k)
            weight = writer.weight(f"{name}.weight", k, n, std=k**-0.5)
            writer.output(writer.op("MatMul", x, weight, name=name), np.float16, m, n)
        else:
            _write_convolution(writer, layer, name)
    writer.save(path, None)


def _write_convolution(writer: ModelWriter, layer: TopologyLayer, name: str) -> None:
    (height, width, channels), (down, across, filters) = layer.image, layer.kernel
    inner, outer = channels // layer.groups, filters * layer.groups
    x = writer.input(f"{name}.in", np.float16, 1, channels, height, width)
    weight = writer.weight(f"{name}.weight", outer, inner, down, across, std=(inner * down * across) ** -0.5)
    over = [
        (o - 1) * s + f - i
        for o, s, f, i in zip(layer.out, layer.strides, (down, across), (height, width), strict=True)
    ]
    writer.op(
        "Conv", x, weight, name=name, kernel_shape=[down, across], strides=list(layer.strides),
        pads=[0, 0, *over], group=layer.groups,
    )  # fmt: skip
    writer.output(name, np.float16, 1, outer, *layer.out)
