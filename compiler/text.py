"""The text form of a graph, and back.

    graph llama {
      in %ids : int64[1,8]
      const %w : fp16[64,96] = absent
      const %shift : fp32[2] = [0.5, 1.0]
      %h : fp16[8,96] = matmul(%x, %w) {activation="relu"}   # fc1
      out %h
    }

Constants of up to 64 elements are written out, exactly; larger ones as a digest of their data. A node is
named by its first result unless `@name` says otherwise; the comment is the node's origin.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping

import numpy as np

from mtia_emu.errors import UserError, nearest
from mtia_emu.types import BOOL, TensorType, dtype_of, parse_type

from .build import MAX_ELEMENTS
from .graph import Attr, Attrs, Const, Graph, Node

INLINE = 64  # elements of the constants that are written out
MOST_DIMENSIONS = 64  # of a tensor, as NumPy has it
DEPTH = 8  # brackets within brackets in an attribute
_BARE = r"[A-Za-z0-9_/](?:[A-Za-z0-9_./:$\-]*[A-Za-z0-9_])?"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_NAME = re.compile(rf"{_BARE}|{_QUOTED}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?:nan|inf|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)")
_TYPE = re.compile(r"[a-z0-9_]+\[[0-9, ]*\]")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def quote(name: str) -> str:
    """Return a name as it stands in the text: quoted where it is not plain."""
    return name if re.fullmatch(_BARE, name) else json.dumps(name)


def dump(graph: Graph, *, digests: bool = True) -> str:
    """Return the text of a graph; without `digests`, large constants are not read, only called `present`."""
    lines = [f"graph {quote(graph.name)} {{"]
    lines += [f"  in %{quote(name)} : {kind}" for name, kind in graph.inputs.items()]
    lines += [f"  const %{quote(k)} : {c.type} = {_const(k, c, digests)}" for k, c in graph.consts.items()]
    lines += [f"  {line(node)}" for node in graph.nodes]
    lines += [f"  out {_output(graph, name)}" for name in graph.outputs]
    return "\n".join([*lines, "}"]) + "\n"


def _output(graph: Graph, name: str) -> str:
    """Return an output as it stands in the text: with the input in whose memory it lies."""
    before = graph.states.get(name)
    return f"%{quote(name)}" + (f" at %{quote(before)}" if before else "")


def line(node: Node) -> str:
    """Return the text of one node."""
    results = ", ".join(f"%{quote(v)} : {t}" for v, t in zip(node.outputs, node.types, strict=True))
    operands = ", ".join(f"%{quote(v)}" if v else "_" for v in node.inputs)
    text = f"{results} = {node.op}({operands})"
    if node.attrs:
        text += " {" + ", ".join(f"{k}={_attr(v)}" for k, v in node.attrs.items()) + "}"
    if node.name != node.output:
        text += f" @{quote(node.name)}"
    if node.origin:
        plain = node.origin.isprintable() and node.origin == node.origin.strip() and node.origin[0] != '"'
        text += f"   # {node.origin if plain else json.dumps(node.origin)}"
    return text


def _attr(value: Attr) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_attr, value))}]"
    return repr(value)


def digest(array: np.ndarray) -> str:
    """Return the digest that stands for large data, of any shape."""
    return f"sha256:{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def _const(name: str, const: Const, digests: bool) -> str:
    if not const.present:
        return "absent"
    if const.type.size > INLINE:
        return digest(const.array(name)) if digests else "present"
    return f"[{', '.join(_element(x) for x in const.array(name).reshape(-1))}]"


def _element(value: np.generic) -> str:
    """Return one element, in the fewest digits that read back as the same value."""
    if value.dtype == np.bool_:
        return "true" if value else "false"
    if not dtype_of(np.asarray(value)).is_float:
        return str(int(value))
    if value.dtype in (np.float64, np.float32, np.float16):
        return str(value)
    return repr(float(value))


class Misread(UserError):
    """A line of a text is wrong: `what` is without its number."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line, self.what = line, what


class _Line:
    """One line being read; every complaint names the line and points at the place."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.number = number
        self.at = 0
        self.skip()

    def fail_at(self, value: str, message: str) -> Misread:
        """Return the error for the place where a value stands last."""
        self.at = max(0, self.text.rfind(f"%{quote(value)}"))
        return self.fail(message)

    def fail(self, message: str) -> Misread:
        """Return the error for the present place."""
        shown = self.text[max(0, self.at - 60) : self.at + 40]
        return Misread(self.number, f"{message}\n  {shown}\n  {' ' * min(self.at, 60)}^")

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    @property
    def done(self) -> bool:
        return self.at >= len(self.text)

    def peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self.at)

    def eat(self, mark: str) -> bool:
        if not self.peek(mark):
            return False
        self.at += len(mark)
        self.skip()
        return True

    def expect(self, mark: str) -> None:
        if not self.eat(mark):
            raise self.fail(f"expected '{mark}'")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self.fail(f"expected {what}")
        self.at = found.end()
        self.skip()
        return found.group()

    def name(self, what: str) -> str:
        return self.unquote(self.match(_NAME, what))

    def unquote(self, text: str) -> str:
        if not text.startswith('"'):
            return text
        try:
            value = str(json.loads(text))
            value.encode()
        except ValueError:  # half a character of two, too
            raise self.fail(f"not a quoted text: {text[:80]}") from None
        return value

    def value(self) -> str:
        self.expect("%")
        return self.name("the name of a value")

    def type(self) -> TensorType:
        start = self.at
        text = self.match(_TYPE, "a type, as in fp16[8,64]")
        try:
            kind = parse_type(text)
        except UserError as error:
            self.at = start
            raise self.fail(str(error)) from None
        if kind.rank > MOST_DIMENSIONS or kind.size > MAX_ELEMENTS:
            self.at = start
            raise self.fail(f"a tensor has at most {MOST_DIMENSIONS} dimensions and {MAX_ELEMENTS} elements")
        return kind

    def typed(self) -> tuple[str, TensorType]:
        name = self.value()
        self.expect(":")
        return name, self.type()

    def many(self, item: Callable[[], object], end: str) -> list[object]:
        """Return items between commas, up to and with the end mark."""
        found: list[object] = []
        while not self.eat(end):
            if found:
                self.expect(",")
            found.append(item())
        return found


def parse(text: str, consts: Mapping[str, np.ndarray] | None = None) -> Graph:
    """Return the graph that `dump` wrote; large data come from `consts` by name, and are absent without it.

    Raises `UserError` with the line and the place for text that is no graph, and for data of another digest.
    """
    lines = [_Line(raw, i) for i, raw in enumerate(text.splitlines(), 1) if raw.strip()]
    if not lines:
        raise Misread(1, "expected 'graph', found nothing")
    lines[0].expect("graph ")
    name = lines[0].name("the graph's name")
    lines[0].expect("{")
    if len(lines) < 2 or lines[-1].text.strip() != "}":
        raise lines[-1].fail("expected '}' on the last line")
    reader = _Reader(consts or {})
    for one in lines[1:-1]:
        reader.read(one)
    reader.check_values()
    graph = Graph(name, reader.nodes, reader.inputs, reader.outputs, reader.consts)
    return graph.with_states(reader.states)


def line_of(text: str, value: str) -> int | None:
    """Return the number of the line that defines a value, or else of the one that gives it out."""
    mark = f"%{quote(value)}"
    starts = [mark, f"in {mark}", f"const {mark}", f"out {mark}"]
    for number, raw in enumerate(text.splitlines(), 1):
        body = raw.strip()
        for start in starts:
            if body.startswith(start) and body[len(start) : len(start) + 1] in ("", " ", ":", ","):
                return number
    return None


class _Reader:
    """Collects what the lines of a graph say."""

    def __init__(self, data: Mapping[str, np.ndarray]) -> None:
        self.data = data
        self.nodes: list[Node] = []
        self.inputs: dict[str, TensorType] = {}
        self.outputs: list[str] = []
        self.states: dict[str, str] = {}
        self.consts: dict[str, Const] = {}
        self.places: dict[str, _Line] = {}  # where each value is defined
        self.reads: list[tuple[_Line, tuple[str, ...]]] = []

    def check_values(self) -> None:
        """Refuse lines that read what no line defines."""
        for line, values in self.reads:
            for value in filter(None, values):
                if value not in self.places:
                    what = "output" if line.text.lstrip().startswith("out ") else "operand"
                    near = nearest(value, self.places)
                    raise line.fail_at(value, f"{what} %{value} is not defined anywhere in the graph{near}")

    def read(self, line: _Line) -> None:
        """Take in one line."""
        if line.eat("in "):
            name, kind = line.typed()
            self._new(line, name)
            self.inputs[name] = kind
        elif line.eat("const "):
            name, kind = line.typed()
            self._new(line, name)
            line.expect("=")
            self.consts[name] = self._data(line, name, kind)
        elif line.eat("out "):
            self.outputs.append(line.value())
            self.reads.append((line, (self.outputs[-1],)))
            if line.eat("at "):
                self._state(line, self.outputs[-1], line.value())
        elif line.peek("%"):
            node = _node(line)
            for value in node.outputs:
                self._new(line, value)
            self.reads.append((line, node.inputs))
            self.nodes.append(node)
        else:
            raise line.fail("expected 'in', 'const', 'out' or a value '%name'")
        if not line.done:
            raise line.fail("expected the end of the line")

    def _state(self, line: _Line, output: str, before: str) -> None:
        if before not in self.inputs:
            near = nearest(before, self.inputs)
            raise line.fail_at(before, f"%{before} is no input of the graph: an output lies at one{near}")
        self.states[output] = before

    def _new(self, line: _Line, name: str) -> None:
        if name in self.places:
            first = self.places[name].number
            raise line.fail_at(name, f"%{name} is defined twice, first in line {first}")
        self.places[name] = line

    def _data(self, line: _Line, name: str, kind: TensorType) -> Const:
        if line.eat("absent"):
            return Const(kind)
        if line.eat("["):
            return _inline(line, kind, line.many(lambda: _scalar(line), "]"))
        wanted = (
            "" if line.eat("present") else line.match(_DIGEST, "absent, present, [values] or sha256:digest")
        )
        if name not in self.data:
            return Const(kind)
        array = np.asarray(self.data[name])
        if array.shape != kind.shape or array.dtype != kind.dtype.numpy:
            raise line.fail(f"the data given for %{name} are {array.dtype}{list(array.shape)}, not {kind}")
        if wanted and digest(array) != wanted:
            raise line.fail(f"the data given for %{name} have another digest, {digest(array)}")
        return Const(kind, array)


def _scalar(line: _Line) -> int | float | bool:
    if line.eat("true"):
        return True
    if line.eat("false"):
        return False
    text = line.match(_NUMBER, "a number")
    try:
        value = int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise line.fail(f"not a number: {text[:40]}") from None
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise line.fail(f"an integer of more than 64 bits: {text[:40]}")
    return value


def _inline(line: _Line, kind: TensorType, values: list[object]) -> Const:
    if len(values) != kind.size:
        raise line.fail(f"{kind} has {kind.size} elements, {len(values)} are given")
    if any(isinstance(v, bool) != (kind.dtype == BOOL) for v in values):
        raise line.fail(f"values {values[:4]} are not of {kind.dtype}")
    if not kind.dtype.is_float and any(isinstance(v, float) for v in values):
        raise line.fail(f"values {values[:4]} are not of {kind.dtype}")
    try:
        with np.errstate(over="ignore"):
            narrow = kind.dtype.numpy in (np.dtype(t) for t in (np.float32, np.float16))
            flat = [kind.dtype.numpy.type(str(v)) for v in values] if narrow else values
            return Const(kind, np.array(flat, kind.dtype.numpy).reshape(kind.shape))
    except (OverflowError, ValueError) as error:
        raise line.fail(f"not values of {kind.dtype}: {error}") from None


def _attr_value(line: _Line, depth: int = 0) -> Attr:
    if depth > DEPTH:
        raise line.fail(f"brackets stand more than {DEPTH} deep")
    if line.peek('"'):
        return line.unquote(line.match(_NAME, "a text"))
    if line.eat("["):
        return tuple(line.many(lambda: _attr_value(line, depth + 1), "]"))  # type: ignore[arg-type]
    return _scalar(line)


def _attrs(line: _Line) -> Attrs:
    found: dict[str, Attr] = {}

    def one() -> None:
        name = line.match(_WORD, "the name of an attribute")
        if name in found:
            raise line.fail(f"attribute '{name}' is given twice")
        line.expect("=")
        found[name] = _attr_value(line)

    line.many(one, "}")
    return found


def _node(line: _Line) -> Node:
    results = [line.typed()]
    while line.eat(","):
        results.append(line.typed())
    line.expect("=")
    op = line.match(_WORD, "the name of an op")
    line.expect("(")
    operands = line.many(lambda: "" if line.eat("_") else line.value(), ")")
    attrs = _attrs(line) if line.eat("{") else {}
    name = line.name("the node's name") if line.eat("@") else results[0][0]
    origin = ""
    if line.eat("#"):
        rest = line.text[line.at :].rstrip()
        line.at = len(line.text)
        origin = line.unquote(rest) if rest.startswith('"') else rest
    values, types = zip(*results, strict=True)
    return Node(name, op, tuple(map(str, operands)), values, types, attrs, origin)
