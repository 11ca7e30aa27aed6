"""Rows sent to the ranks that have their experts, and back, in place of gathers and sums of all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..graph import Attr, Node
from ..ops.layout import Axes, Layout


@dataclass(frozen=True)
class Routes:
    """What is known of a split graph where rows meet experts.

    `layouts` are those of local values, `looked` the choices, counted over all experts, by the product with a
    rank's own, `axes` those that experts are split over.
    """

    nodes: Sequence[Node]
    layouts: Mapping[str, Layout]
    looked: Mapping[str, str]
    axes: Axes

    def exchanged(self) -> tuple[Node, ...]:
        """Return the nodes with `dispatch` and `combine` for exchanges that all rows need not take part in.

        That are gathers whose result only products with experts read, all by the same choices, and sums over
        the ranks that experts are split over, of what such products made.
        """
        return tuple(self._dispatched(i, n) or self._combined(n) or n for i, n in enumerate(self.nodes))

    def _over(self, node: Node | None, op: str) -> bool:
        return node is not None and node.op == op and tuple(node.attrs["axes"]) == self.axes

    def _dispatched(self, number: int, node: Node) -> Node | None:
        """Return the exchange that sends rows to their experts; None where others read the gather."""
        if not self._over(node, "all_gather") or node.attrs["dim"] != 0:
            return None
        readers = [n for n in self.nodes if node.output in n.inputs]
        chosen = {self.looked.get(n.output) if n.inputs[0] == node.output else None for n in readers}
        if len(chosen) != 1 or None in chosen:
            return None
        gathered = self._made(chosen.pop() or "")
        if gathered is None or not self._over(gathered, "all_gather"):
            return None
        own = gathered.inputs[0]
        if not any(own in n.outputs for n in self.nodes[:number]):
            return None
        attrs = {**node.attrs, **self._routing(readers[0], together=False)}
        return replace(node, op="dispatch", inputs=(node.inputs[0], own), attrs=attrs)

    def _combined(self, node: Node) -> Node | None:
        """Return the exchange that sends back what experts made; None for other sums."""
        if not self._over(node, "reduce_scatter") or node.attrs["dim"] != 0:
            return None
        pending, seen = [node.inputs[0]], set[str]()
        while pending:
            value = pending.pop()
            made = self._made(value)
            if made is None or value in seen:
                continue
            seen.add(value)
            product = self._made(made.inputs[1]) if made.op == "where" else None
            choices = self._made(self.looked.get(product.output, "")) if product is not None else None
            if product is not None and choices is not None:
                attrs = {**node.attrs, **self._routing(product, together=True)}
                return replace(node, op="combine", attrs=attrs)
            pending += [v for v in made.inputs if v in self.layouts and self.layouts[v].sums]
        return None

    def _made(self, value: str) -> Node | None:
        return self._makers.get(value)

    @cached_property
    def _makers(self) -> Mapping[str, Node]:
        return {value: node for node in self.nodes for value in node.outputs}

    def _routing(self, product: Node, together: bool) -> dict[str, Attr]:
        """Return how rows go to experts, as attributes of an exchange; `together` those of one token."""
        gathered = self._made(self.looked[product.output])
        assert gathered is not None
        each = gathered.type.shape[1]
        if together:
            each = max(each, int(product.attrs.get("each", 1)))
        known = {name: value for name, value in product.attrs.items() if name == "law"}
        return {"experts": product.attrs["of"], "each": each, **known}
