"""Importing: an interpreter that reads ONNX nodes in order and makes our nodes, with every shape known.

What depends on shapes alone is a constant by the time it is read, so conditions on shapes choose a branch
here and loops of known length are unrolled. What cannot be imported is collected, and reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..build import LONGEST_NAME, NodeBuilder
from ..graph import Const, Graph, Node
from ..ops import ONNX, Call, Unsupported
from . import ragged
from .control import SPECIAL
from .exported_step import with_exported_states
from .failures import Failure, NotImported, Placed, told
from .files import initializers, tensor_const, text_of
from .functions import body_of_schema, same_since
from .notes import Loop, written_out
from .once import DEEPEST, Once
from .scope import Absent, NodeList, Nothing, Ragged, Scope, Tensors, Value, cost, op_key, reads
from .sparse import DENSE, dense_const, is_sparse

OLDEST = 7  # the operator set from which operands broadcast as in NumPy
RECURRENT = ("GRU", "LSTM", "RNN")


class Importer:
    """Imports one model into one builder."""

    def __init__(self, model: Any, path: Path, allow_missing: bool) -> None:
        self.model = model
        self.path = path
        self.allow_missing = allow_missing
        self.builder = NodeBuilder()
        self.failures: list[Failure] = []
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.once = Once()
        self.written_out = 0  # elements of sparse tensors
        self.loops: list[Loop] = []
        self.depth = 0

    def run(
        self,
        inputs: Mapping[str, TensorType],
        values: Mapping[str, np.ndarray],
        sequences: Mapping[str, Sequence[TensorType] | None],
    ) -> Graph:
        """Return the graph for inputs of these types; raise `NotImported` listing what cannot be imported.

        Inputs in `values` become constants, and are no inputs of the graph. A sequence becomes an input for
        each of its tensors, `NAME.0`, `NAME.1`, ...; None is an optional that is empty.
        """
        graph = self.model.graph
        scope = Scope(_opsets(self.model.opset_import))
        for name, array in values.items():
            scope.values[name] = self.builder.constant(array, hint=name)
        inputs = {name: kind for name, kind in inputs.items() if name not in values}
        scope.values.update((name, name) for name in inputs)
        for name, kinds in sequences.items():
            items = {f"{name}.{i}": kind for i, kind in enumerate(kinds or ())}
            scope.values[name] = Nothing() if kinds is None else Tensors(tuple(items))
            inputs |= items
        for name, kind in inputs.items():
            self.builder.declare(name, kind)
        self.graph(graph, scope)
        self._report()
        return self._finish(graph, scope, inputs)

    def graph(self, graph: Any, scope: Scope) -> list[Value]:
        """Import a graph's constants and nodes into a scope; return its outputs.

        What the scope has already was given: a constant of that name is only its default.
        """
        tensors = self.once.of("initializers", graph, lambda: initializers(graph))
        outputs = [o.name for o in graph.output]
        body = self.once.body(graph, outputs, len(tensors))
        self.once.spend(len(tensors) // 16)
        for name, tensor in tensors.items():
            if name not in scope.values:
                scope.values[name] = self.stored(tensor, name)
        return self.nodes(body, outputs, scope)

    def nodes(self, body: NodeList, outputs: Sequence[str], scope: Scope) -> list[Value]:
        """Import the nodes of a body into a scope; return the values of the named outputs."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise UserError(f"graphs and functions are nested more than {DEEPEST} deep")
        self.once.spend(1)
        for node in body.nodes:
            self.once.spend(cost(node))
            self._node(node, scope, body.used)
        self.depth -= 1
        return [self._find(name, scope, "an output of the graph") for name in outputs]

    def loop(self, node: Any, steps: int, before: int) -> None:
        """Note that a node was written out in so many steps; what it made begins after `before` nodes."""
        while self.loops and self.loops[-1].first >= before:  # those within it
            self.loops.pop()
        name = f"{op_key(node)} {node.name or node.output[0]}"
        self.loops.append(Loop(name, steps, before, len(self.builder.nodes)))

    def stored(self, tensor: Any, name: str) -> Value:
        """Return a tensor of the file as a constant: one value, however often a body is written out."""
        return self.once.of("value", tensor, lambda: self._constant(tensor, name))

    def _constant(self, tensor: Any, name: str) -> Value:
        try:
            const = self._const(tensor)
        except Unsupported as error:
            self.failures.append(Failure(name or "constant", "constant", str(error)))
            return Absent()
        if const.loaded is not None and const.type.size <= 1:
            return self.builder.constant(const.loaded, hint=name or "c")
        return self.builder.put(self.builder.fresh(name or "c"), const)

    def _const(self, tensor: Any) -> Const:
        if not is_sparse(tensor):
            return tensor_const(tensor, self.path.parent, self.allow_missing)
        const = dense_const(tensor, self.path.parent, DENSE - self.written_out)
        self.written_out += const.type.size
        return const

    def _find(self, name: str, scope: Scope, reader: str) -> Value:
        value = scope.find(name)
        if value is None:
            raise UserError(f"{self.path}: {reader} reads %{name}, which nothing defines")
        return value

    def _node(self, node: Any, scope: Scope, used: Set[str]) -> None:
        where = f"{op_key(node)} {node.name or (node.output[0] if node.output else '')}".strip()
        inputs = tuple(self._find(n, scope, where) if n else "" for n in node.input)
        outer = self.builder.origin
        self.builder.origin = node.name[:LONGEST_NAME] or outer  # a copy, for each iteration of a loop
        try:
            results = self._import(node, inputs, scope, used)
        except Unsupported as error:
            self._fail(node, str(error), error.value)
            results = [Absent()] * len(node.output)
        except Placed:
            raise
        except UserError as error:
            raise Placed(f"{self.path}: {where}: {error}") from None
        except (
            TypeError,
            ValueError,
            IndexError,
            KeyError,
            OverflowError,
            ZeroDivisionError,
            AttributeError,
        ) as error:
            raise Placed(f"{self.path}: {where} is malformed: {type(error).__name__}: {error}") from error
        self.builder.origin = outer
        self._define(node, results, scope, used)

    def _define(self, node: Any, results: Sequence[Value], scope: Scope, used: Set[str]) -> None:
        for i, name in enumerate(node.output):
            if not name:
                continue
            if name in scope.values:
                raise UserError(
                    f"{self.path}: value %{name} is defined twice, once by {op_key(node)} {node.name}"
                )
            if i >= len(results) or results[i] == "":
                if name in used:
                    self._fail(node, f"its result {i}, %{name}, is not supported")
                scope.values[name] = Absent()
            else:
                scope.values[name] = results[i]

    def _fail(self, node: Any, reason: str, value: str = "") -> None:
        self.failures.append(
            Failure(node.name or (node.output[0] if node.output else "?"), op_key(node), reason, value)
        )

    def _import(self, node: Any, inputs: tuple[Value, ...], scope: Scope, used: Set[str]) -> Sequence[Value]:
        """Return the values of a node's results; raise `Unsupported` when they cannot be made."""
        key = op_key(node)
        function = self.functions.get((node.domain, node.op_type))
        known = (
            function is not None
            or key in ONNX
            or key in SPECIAL
            or body_of_schema(node, scope.opsets) is not None
        )
        if not known:
            raise Unsupported("no such operator")
        if any(isinstance(v, Absent) for v in inputs) or any(
            isinstance(scope.find(n), Absent) for n in self._captures(node)
        ):
            return [Absent()] * len(node.output)
        if function is not None:
            return self._call(function, node, inputs, scope)
        if any(isinstance(v, Ragged) for v in inputs):
            return ragged.apply(self, node, inputs, scope, used)
        if key in SPECIAL:
            return SPECIAL[key](self, node, inputs, scope)
        if key in ONNX:
            return self.spell(node, key, inputs, scope, used)
        return self._call(self._schema(node, inputs, scope), node, inputs, scope, own=False)

    def _captures(self, node: Any) -> Set[str]:
        """Return the names that a node with graphs of its own reads."""
        if not any(attr.type in (5, 10) for attr in node.attribute):
            return frozenset()
        return self.once.of("captures", node, lambda: reads(node))

    def spell(
        self, node: Any, key: str, inputs: tuple[Value, ...], scope: Scope, used: Set[str]
    ) -> Sequence[Value]:
        """Return what our spelling of an operator makes of a node."""
        version = scope.opsets.get("", OLDEST)
        if version < OLDEST and not same_since(node, version, OLDEST):
            raise Unsupported(f"operator set {version} is too old (at least {OLDEST})")
        operands = tuple(self.tensor(v) for v in inputs)
        attrs = self.attributes(node, scope)
        call = Call(
            self.builder,
            key,
            scope.opsets.get("", 1),
            operands,
            len(node.output),
            attrs,
            node.output[0] if node.output else "",
            tuple(bool(n) and n in used for n in node.output),
        )
        before = len(self.builder.nodes)
        results = ONNX[key](call)
        if key in RECURRENT:  # written out step by step
            self.once.spend(len(self.builder.nodes) - before)
            self.loop(node, self.builder.type_of(operands[0]).shape[call.attr("layout", 0)], before)
        return [results] if isinstance(results, str) else list(results)

    def tensor(self, value: Value) -> str:
        """Return a value that must be a tensor."""
        if isinstance(value, Ragged):
            raise ragged.unknown(self, value)
        if not isinstance(value, str):
            raise Unsupported("an operand is a sequence, or an optional that is empty")
        return value

    def attributes(self, node: Any, scope: Scope) -> dict[str, Any]:
        """Return a node's attributes as Python values, those of the function around it filled in."""
        values: dict[str, Any] = {}
        for attr in node.attribute:
            if attr.ref_attr_name:
                if attr.ref_attr_name in scope.attrs:
                    values[attr.name] = scope.attrs[attr.ref_attr_name]
            elif attr.type not in (5, 10):
                values[attr.name] = self._attribute(attr)
        return values

    def _attribute(self, attr: Any) -> Any:
        plain = {1: "f", 2: "i", 3: "s"}.get(attr.type)
        if plain is not None:
            value = getattr(attr, plain)
            return text_of(value) if plain == "s" else value
        return self.once.of("values", attr, lambda: self._values(attr))

    def _values(self, attr: Any) -> Any:
        if attr.type == 4:  # TENSOR
            return tensor_const(attr.t, self.path.parent, False).array(attr.name)
        if attr.type == 8:
            return tuple(text_of(v) for v in attr.strings)
        if attr.type not in (6, 7):
            raise Unsupported(f"attribute '{attr.name}' is of kind {attr.type}")
        return tuple(attr.floats if attr.type == 6 else attr.ints)

    def _schema(self, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Any:
        types = [self.builder.type_of(self.tensor(v)) if v else None for v in inputs]
        body = body_of_schema(self._resolved(node, scope), scope.opsets, types)
        if body is None:
            raise Unsupported("no such operator")
        return body

    def _resolved(self, node: Any, scope: Scope) -> Any:
        """Return a node whose attributes do not refer to those of the function around it."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.attribute[:]
        for attr in node.attribute:
            if not attr.ref_attr_name:
                copy.attribute.append(attr)
            elif attr.ref_attr_name in scope.attrs:
                copy.attribute.append(onnx.helper.make_attribute(attr.name, scope.attrs[attr.ref_attr_name]))
        return copy

    def _call(
        self, function: Any, node: Any, inputs: tuple[Value, ...], scope: Scope, *, own: bool = True
    ) -> Sequence[Value]:
        """Return the results of a function's body on these operands; `own`: it stands in the file."""
        attrs = {a.name: self._attribute(a) for a in function.attribute_proto}
        attrs.update(self.attributes(node, scope))
        inner = Scope(_opsets(function.opset_import) or scope.opsets, None, {}, attrs)
        for i, name in enumerate(function.input):
            inner.values[name] = inputs[i] if i < len(inputs) else ""
        defined = set(inner.values).union(*(m.output for m in function.node))
        names = [n for n in function.output if n in defined]
        body = self.once.body(function, names) if own else NodeList.of(function, names)
        results = dict(zip(names, self.nodes(body, names, inner), strict=True))
        return [results.get(name, "") for name in function.output]

    def _report(self) -> None:
        """Raise `UserError` naming every node that could not be imported, by op type."""
        if not self.failures:
            return
        sources = (self.builder.sources(f.value) for f in self.failures if f.value)
        raise NotImported(told(self.path, self.failures), frozenset().union(*sources))

    def _finish(self, graph: Any, scope: Scope, inputs: Mapping[str, TensorType]) -> Graph:
        """Return the graph, its values under their ONNX names where they have one."""
        values = self._outputs(graph, scope)
        names, outputs = list(values), list(values.values())
        renames = self._renames(scope, outputs, names, inputs)
        nodes = [_rename(node, renames) for node in self.builder.nodes]
        consts = {renames.get(k, k): c for k, c in self.builder.consts.items()}
        for value, name in zip(outputs, names, strict=True):
            given = renames.get(value, value)
            if given != name:
                nodes.append(Node(name, "copy", (given,), (name,), (self.builder.type_of(value),)))
        whole = Graph(graph.name or self.path.stem, nodes, inputs, names, consts).prune()
        whole = whole.with_notes(written_out(self.loops, nodes, whole))
        return with_exported_states(whole, graph.node)

    def _outputs(self, graph: Any, scope: Scope) -> dict[str, str]:
        """Return the values of the graph's outputs by name, those of a sequence as `NAME.0`, `NAME.1`, ..."""
        outputs: dict[str, str] = {}
        for output in graph.output:
            value = self._find(output.name, scope, "an output of the graph")
            if isinstance(value, Tensors) and not value.rows:
                outputs |= {f"{output.name}.{i}": item for i, item in enumerate(value.items)}
            elif isinstance(value, str):
                outputs[output.name] = value
            elif isinstance(value, Ragged):
                reason = f"{self.path}: output {output.name} is as long as the data say"
                sources = (self.builder.sources(v) for v in (value.start, value.end))
                raise NotImported(reason, frozenset().union(*sources))
            elif not isinstance(value, Nothing):
                raise UserError(f"{self.path}: output {output.name} is a sequence of unknown length")
        for name, value in outputs.items():
            run = self.builder.producer(value, "ragged_split")
            if run is not None:
                reason = (
                    f"{self.path}: output {name} is as long as the data say (its sizes must be constants)"
                )
                raise NotImported(reason, frozenset(self.builder.sources(run.inputs[1])))
        return outputs

    def _renames(
        self, scope: Scope, outputs: Sequence[str], names: Sequence[str], inputs: Mapping[str, TensorType]
    ) -> dict[str, str]:
        results = {v for node in self.builder.nodes for v in node.outputs}
        renames: dict[str, str] = {}
        given: set[str] = set()
        named = list(zip(names, outputs, strict=True))
        named += [(k, v) for k, v in scope.values.items() if isinstance(v, str)]
        for name, value in named:
            if value in results and value not in renames and name not in given:
                renames[value] = name
                given.add(name)
        taken = given | set(names)
        rest = [v for v in (*results, *self.builder.consts) if v not in renames]
        for value in rest:  # a name that was ours by chance gives way to the model's
            if value in taken:
                renames[value] = self._unused(value, taken)
        return renames

    def _unused(self, name: str, taken: set[str]) -> str:
        while (candidate := self.builder.fresh(f"{name}.old")) in taken:
            taken.add(candidate)
        taken.add(candidate)
        return candidate


def _rename(node: Node, renames: Mapping[str, str]) -> Node:
    inputs = tuple(renames.get(v, v) for v in node.inputs)
    outputs = tuple(renames.get(v, v) for v in node.outputs)
    return replace(node, name=outputs[0] if outputs else node.name, inputs=inputs, outputs=outputs)


def _opsets(imports: Any) -> dict[str, int]:
    return {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in imports}
