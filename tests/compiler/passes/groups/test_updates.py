"""Updates of many tables as one kernel of a GPU."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.passes.groups import MarkUpdates
from mtia_emu.compiler.passes.groups.base import Flow, MarkedGraph

from mtia_emu.types import RowUpdateWork

TAPE = "3 -> t1 | t0 = mul(x0, x2); t1 = sub(x1, t0)"


def update(number: int, rows: int, dim: int) -> str:
    return (
        f"  %u{number} : fp32[{rows},{dim}] = update_rows(%t{number}, %i, %g{dim}, %p, %r) "
        f'{{tables=1, tape="{TAPE}"}}'
    )


def test_tables_of_one_width_are_one_kernel() -> None:
    sizes = [(90, 8), (2, 8), (50, 4), (7, 8)]
    graph = text.parse(
        "\n".join(
            [
                "graph g {",
                *(f"  in %t{n} : fp32[{rows},{dim}]" for n, (rows, dim) in enumerate(sizes)),
                *("  in %i : int64[6]", "  in %p : int64[6]", "  in %r : fp32[]"),
                *(f"  in %g{dim} : fp32[6,{dim}]" for dim in (8, 4)),
                *(update(n, *size) for n, size in enumerate(sizes)),
                *(f"  out %u{n} at %t{n}" for n in range(len(sizes))),
                "}",
            ]
        )
    )
    flow = Flow(graph)
    (group,) = MarkUpdates()(MarkedGraph(graph, flow)).groups
    assert group.nodes == ("u0", "u1", "u3") and group.at == "u3"
    works = [flow.works[name] for name in group.nodes]
    assert isinstance(group.work, RowUpdateWork) and group.work.lookups == 18 and group.work.rows == 99
    for name in ("changed", "pieces", "old_bytes", "read_bytes", "write_bytes", "flops"):
        assert getattr(group.work, name) == sum(getattr(w, name) for w in works)
