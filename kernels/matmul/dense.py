"""Matrix products: out[b,m,n] = a[b,m,k] x b[b,k,n], with an epilogue tape on each output tile.

All PEs walk the same steps: batch, outer tile, inner tile, k panel. Step s loads its operands while steps
before it multiply; after the last panel of a tile come the reduction chain where k is split, the epilogue
and the store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import FIRST, VECTOR, Block, Cast, Opcode, Operand, Shape
from mtia_emu.types import DType

from ..builder import LINE, Builder, round_up
from ..phases import Phases
from ..rows.emit_tape import PeTiles, TapeSite, allocate, elements, emit_steps, reserve
from ..rows.tape import Tape, finish
from .epilogue import meets
from .plan import RINGS, MatmulPlan
from .staging import StagedLoads, Walked, staged_outer, staged_slabs

Array = np.ndarray[Any, Any]

# Links, SRAM and DRAM are granted in the order of issue: each phase stands about where it is ready to run.
ISSUE = Phases(
    loads=0,  # a round before the product that reads them: on their way while the step before multiplies
    extras=0,  # the epilogue reads them, after all panels of its tile
    store=2,  # the epilogue, of the round before, is about done; loads go first: a product waits for them
    product=1,
    refill=0,  # of slots that hold a panel: behind the product of the step before, which may still read it
    chain=1,  # the sums of a tile whose last panel is multiplied go from PE to PE,
    epilogue=1,  # and the last PE finishes them
    stage=-1,  # copies to SRAM begin before any load of the outer tile that they run beside
)


def emit_matmul(
    plan: MatmulPlan,
    a: Operand,
    b: Operand,
    out: Operand,
    epilogue: Tape | None = None,
    extras: Sequence[Operand] = (),
) -> Block:
    """Return the block of a planned product.

    a is [.., m, k], b [.., k, n], out [.., m, n], each seen as a matrix with its batches down the rows. The
    matrix unit keeps both operands k innermost: b is best in memory as [n, k], a b stored [k, n] is turned.
    The epilogue tape takes the accumulated tile as x0 and the extras as x1, x2, ...: rows [1, n], columns
    [batch * m, 1] or whole views of batch * m rows and n columns.
    """
    return MatmulEmitter(
        plan, a, b, out, finish(epilogue or Tape(1, (), (0,)), [out.dtype]), tuple(extras)
    ).block()


class MatmulEmitter:
    """The step grid of one product: arrays over (step, PE)."""

    kernel = "matmul"

    def __init__(
        self, plan: MatmulPlan, a: Operand, b: Operand, out: Operand, tape: Tape, extras: tuple[Operand, ...]
    ) -> None:
        self.plan, self.tape, self.extras = plan, tape, extras
        self.p, self.t = plan.problem, plan.mapping
        operands = (a, replace(b, by_column=True), out, *extras)
        self.scratch = {name: len(operands) + i for i, name in enumerate(plan.scratch)}
        operands += tuple(map(self._scratch, plan.scratch))
        self.build = self._builder(operands)
        self._walk()
        self._reserve()

    def _builder(self, operands: tuple[Operand, ...]) -> Builder:
        """Return what commands are added to."""
        return Builder(self.plan.chip, self.kernel, operands, str(self.t))

    def _about(self, step: Array, pe: Array, rows_of: str = "a") -> None:
        """Hear that the commands added next are of tiles step[n] of pe[n], and their rows those of a or b."""

    def _walk(self) -> None:
        """Number the steps and find each PE's tile in each step."""
        local, grid = self.plan.local, self.plan.chip.grid
        inner, outer = self.plan.chunk, local[self.t.outer]
        self.build.limit(self.plan.steps * grid.rows * grid.cols)
        self.s = np.arange(self.plan.steps)[:, None]
        self.kk = self.s % local["k"]
        self.inner = self.s // local["k"] % inner
        self.outer = self.s // (local["k"] * inner)  # counts through batches, and those through slabs
        self.slab = self.outer // (outer * local["b"])
        pe = np.arange(grid.rows * grid.cols)[None, :]
        self.pe, row, col = pe, pe // grid.cols, pe % grid.cols
        walk = {
            "b": self.outer // outer % local["b"],
            self.t.outer: self.outer % outer,
            self.plan.inner: self.slab * inner + self.inner,
            "k": self.kk,
        }
        self.tile = {d: self._tile_of(d, self.plan.part(d, row, col), walk[d]) for d in "bmnk"}
        there = [self.tile[d] < self.plan.tiles[d] for d in "bmn"]
        inside = np.logical_and.reduce(there) & (walk[self.plan.inner] < local[self.plan.inner])
        self.valid_out = inside & self.plan.works(row, col)
        self.batch = walk["b"]
        self.valid = self.valid_out & (self.tile["k"] < self.plan.tiles["k"])
        self.m0, self.n0, self.k0 = (
            self.tile["m"] * self.t.tm,
            self.tile["n"] * self.t.tn,
            self.tile["k"] * self.t.kp,
        )
        self.m = np.clip(self.p.m - self.m0, 0, self.t.tm)
        self.n = np.clip(self.p.n - self.n0, 0, self.t.tn)
        self.k = np.clip(self.p.k - self.k0, 0, self.t.kp)

    def _tile_of(self, dim: str, part: Array, nth: Array) -> Array:
        """Return the tile of a dimension that a part of the grid walks nth: one after another."""
        return part * self.plan.local[dim] + nth

    def _reserve(self) -> None:
        p, t = self.p, self.t
        self.panels = {"a": self._panels("a", p.a, t.tm * t.kp), "b": self._panels("b", p.b, t.kp * t.tn)}
        tile = t.tm * t.tn
        self.accumulators = max(1, min(RINGS, self.plan.chip.pe.reduce.bytes // round_up(4 * tile, LINE)))
        self.acc_slot = self.build.slot(p.accumulator, tile, self.accumulators, accumulator=True)
        self.out_slot = self.build.slot(p.out, tile, RINGS)
        self.shapes = [Shape.FULL, *(meets(x, p.n) for x in self.extras)]
        edge = [elements(s, t.tm, t.tn) for s in self.shapes[1:]]
        self.extra_slots = [
            self.build.slot(x.dtype, e, RINGS) for x, e in zip(self.extras, edge, strict=True)
        ]
        self.registers = allocate(self.tape, self.shapes)
        self.register_slots = reserve(self.build, self.registers, t.tm, t.tn)

    def _panels(self, operand: str, kind: DType, elements: int) -> Array:
        """Reserve slots for an operand's panels; return the slot that it stands in, [step]."""
        ring, held = np.broadcast_to(0, self.s[:, 0].shape), self._holds(operand)
        count = self.plan.hold * self.t.rings
        if held.any():
            first = self.build.slot(kind, elements, count)
            ring = first + self.outer[:, 0] % self.t.rings * self.plan.hold + self.kk[:, 0]
        if held.all():
            return ring
        depth = min(self.t.depth, int((~held).sum()))
        loaded = np.cumsum(~held) - 1  # how many panels went through the ring before
        return np.where(held, ring, self.build.slot(kind, elements, depth) + loaded % depth)

    def _holds(self, operand: str) -> Array:
        """Return, [step], whether the operand's panel stays in local memory while the inner one changes."""
        return (self.kk[:, 0] < self.plan.hold) & (operand == self.plan.outer_operand)

    def _scratch(self, operand: str) -> Operand:
        """Return the SRAM scratch operand of a staged one: its tiles one under another."""
        by_column = operand == "b"  # which is kept k innermost
        rows, cols, kind = (self.t.kp, self.t.tn, self.p.b) if by_column else (self.t.tm, self.t.kp, self.p.a)
        strides = (rows * cols, 1, rows) if by_column else (rows * cols, cols, 1)
        place = self.plan.scratch[operand]
        return Operand(
            kind, (place.first + place.count, rows, cols), strides, Memory.SCRATCH, True, by_column
        )

    def emit(self) -> None:
        """Emit everything."""
        results = math.prod(self.plan.tiles[d] for d in "bmn")
        loads = sum(int(self._loads(x)[1].sum()) for x in "ab")
        self.build.limit(int(self.valid.sum()) + loads + results)  # at least: each result is stored
        for operand in self._order():
            self._load(operand)
        self._multiply()
        last = self.kk[:, 0] == self.plan.local["k"] - 1
        self._chain(last)
        self._finish_tiles(last)

    def block(self) -> Block:
        """Emit everything and return the block."""
        self.emit()
        stages = sum(x.count for x in self.plan.scratch.values())
        return self.build.block(scratch_bytes=self.plan.stage_bytes(), stages=stages)

    def _groups(self, cast: Cast, working: Array) -> tuple[Array, Array]:
        """Return each multicast group's leader, [group], and where one of its PEs works, [step, group].

        `working` is [step, PE].
        """
        grid = self.plan.chip.grid
        shape = (len(self.s), grid.rows, grid.cols)
        axes = {Cast.NONE: (), Cast.ROW: (2,), Cast.COL: (1,), Cast.ALL: (1, 2)}[cast]
        work = working.reshape(shape).any(axis=axes).reshape(len(self.s), -1)
        leaders = self.pe.reshape(grid.rows, grid.cols)
        chosen = {
            Cast.NONE: leaders,
            Cast.ROW: leaders[:, :1],
            Cast.COL: leaders[:1],
            Cast.ALL: leaders[:1, :1],
        }[cast]
        return chosen.ravel(), work

    def _loads(self, operand: str) -> tuple[Array, Array]:
        """Return the leader of each group that loads an operand, [group], and when it does, [step, group]."""
        leaders, work = self._groups(self.plan.cast(operand), self.valid)
        fresh = ~self._holds(operand) | (self.inner[:, 0] == 0)
        return leaders, work & fresh[:, None]

    def _order(self) -> list[str]:
        """Return the operands in the order in which a step loads them: what takes a memory longest first.

        From afar before from near, panels of few PEs (many loads at a time) before shared ones, then long
        ones: while a shared panel passes the ports the memory would idle.
        """
        p, t = self.p, self.t
        spaces = {"a": p.a_space, "b": p.b_space}
        sizes = {"a": t.tm * t.kp * p.a.bytes, "b": t.tn * t.kp * p.b.bytes}
        return sorted("ab", key=lambda x: (not spaces[x].off_chip, -self.plan.leaders(x), -sizes[x]))

    def _load(self, operand: str) -> None:
        """Emit the loads of a or b, and their staging."""
        plan = self.plan
        cast = plan.cast(operand)
        leaders, loads = self._loads(operand)
        step, group = np.nonzero(loads)
        lead = leaders[group]
        fields = self._tile(operand, step, lead)
        if operand in self.scratch:
            walked = Walked(self.kk, self.inner, self.outer, self.slab, self.batch, self.tile)
            if operand == plan.outer_operand:
                staged = staged_outer(plan, walked, (step, group, plan.first_alike(leaders)[group]))
            else:
                staged = staged_slabs(plan, walked, (step, lead))
            fields |= self._stage(operand, fields, staged)
        self._about(step, lead, operand)
        self.build.add(
            Opcode.LOAD,
            self._when(operand, step),
            pe=lead,
            cast=cast,
            dst=self.panels[operand][step],
            **fields,
        )

    def _when(self, operand: str, step: Array) -> Array:
        """Return the place of loads in the order of issue.

        Panels that are held twice are loaded a whole outer tile ahead, spread over its steps. A held panel is
        filled again after the product of the step before, which may still read it.
        """
        held, lk = self._holds(operand)[step], self.plan.local["k"]
        per_outer = self.plan.chunk * lk
        ahead = (self.outer[step, 0] - 1) * per_outer + self.kk[step, 0] * per_outer // lk
        loads = ISSUE.at("loads", step)
        if self.t.rings == 2:
            return np.where(held & (ahead >= 0), ISSUE.at("refill", ahead), loads)
        return np.where(held & (lk == 1) & (self.outer[step, 0] > 0), ISSUE.at("refill", step), loads)

    def _tile(self, operand: str, step: Array, pe: Array) -> dict[str, Any]:
        """Return the tiles of operand a or b that pe[n] needs in step[n], [n] each."""
        at = (step, pe)
        batch, k0, k = self.tile["b"][at], self.k0[at], self.k[at]
        if operand == "a":
            row = self.m0[at] + (batch * self.p.m if self.p.a_batched else 0)
            return {"operand": 0, "row": row, "rows": self.m[at], "col": k0, "cols": k}
        row = k0 + (batch * self.p.k if self.p.b_batched else 0)
        return {"operand": 1, "row": row, "rows": k, "col": self.n0[at], "cols": self.n[at]}

    def _stage(self, operand: str, fields: dict[str, Any], staged: StagedLoads) -> dict[str, Any]:
        """Emit the copies to SRAM of tiles [n], each once; return the fields of the loads from there."""
        places, index = self.plan.scratch, self.scratch[operand]
        first = sum(places[x].count for x in places if self.scratch[x] < index)  # of the stage slots
        rows, once = self.t.tm if operand == "a" else self.t.kp, staged.once
        at = (places[operand].first + staged.place) * rows
        tile = {name: np.broadcast_to(value, at.shape)[once] for name, value in fields.items()}
        self.build.add(
            Opcode.STAGE,
            ISSUE.at("stage", staged.step),
            operand2=index,
            row2=at[once],
            stage=first + staged.place[once],
            **tile,
        )
        return {"operand": index, "row": at, "col": 0, "stage": first + staged.place}

    def _multiply(self) -> None:
        step, pe = np.nonzero(self.valid)
        tile = step // self.plan.local["k"]
        vector = 0 if self.plan.chip.pe.matrix.supports(self.p.a.name) else VECTOR
        self._about(step, pe)
        self.build.add(
            Opcode.MATMUL,
            ISSUE.at("product", step),
            pe=pe,
            rows=self.m[step, pe],
            cols=self.n[step, pe],
            k=self.k[step, pe],
            dst=self.acc_slot + tile % self.accumulators,
            src0=self.panels["a"][step],
            src1=self.panels["b"][step],
            flags=np.where(self.kk[step, 0] == 0, FIRST, 0) | vector,
        )

    def _chain(self, last: Array) -> None:
        """Emit the reduction of partial sums along the PEs that split k, in the steps done[step]."""
        hops, parts = self.plan.chain
        for hop in range(1, parts):
            here = self._position() == hop
            step, pe = np.nonzero(self.valid_out & here & last[:, None])
            self._about(step, pe)
            self.build.add(
                Opcode.REDUCE,
                ISSUE.at("chain", step) + hop / 1024,
                pe=pe,
                src_pe=pe - hops,
                rows=self.m[step, pe],
                cols=self.n[step, pe],
                dst=self.acc_slot + step // self.plan.local["k"] % self.accumulators,
            )

    def _position(self) -> Array:
        """Return which part of k each PE has, [1, PE]."""
        cols = self.plan.chip.grid.cols
        return self.plan.part("k", self.pe // cols, self.pe % cols)

    def _finish_tiles(self, ending: Array) -> None:
        """Emit the epilogue and the store of each tile that is finished, in the steps done[step]."""
        last = self.plan.chain[1] - 1
        final = self._position() == last if last else (self.tile["k"] < self.plan.tiles["k"]) | (self.kk > 0)
        step, pe = np.nonzero(self.valid_out & final & ending[:, None])
        ordinal, at = step // self.plan.local["k"], (step, pe)
        row = self.m0[at] + self.tile["b"][at] * self.p.m
        self._about(step, pe)
        self._load_extras(step, pe, row)
        out = self.out_slot + ordinal % RINGS
        turns = [self._row_turn(step) if s is Shape.ROW else ordinal % RINGS for s in self.shapes[1:]]
        inputs = [
            self.acc_slot + ordinal % self.accumulators,
            *(slot + turn for slot, turn in zip(self.extra_slots, turns, strict=True)),
        ]
        into = {len(self.tape.steps) - 1: out}
        site = TapeSite(inputs, self.shapes, self.registers, self.register_slots, into)
        tiles = PeTiles(pe, self.m[at], self.n[at])
        emit_steps(self.build, self.tape, site, ISSUE.at("epilogue", step), tiles)
        tile = {"row": row, "rows": self.m[at], "col": self.n0[at], "cols": self.n[at]}
        self.build.add(Opcode.STORE, ISSUE.at("store", step), pe=pe, operand=2, src0=out, **tile)

    def _load_extras(self, step: Array, pe: Array, row: Array) -> None:
        """Emit the loads of what epilogues take, for tiles [n] that begin at row[n] of the result."""
        ordinal, at = step // self.plan.local["k"], (step, pe)
        for index, (slot, shape) in enumerate(zip(self.extra_slots, self.shapes[1:], strict=True)):
            if shape is Shape.ROW:
                self._load_row(index, step, pe)
                continue
            tile = {"row": row, "rows": self.m[at], "col": self.n0[at], "cols": self.n[at]}
            if shape is Shape.COL:
                tile |= {"col": 0, "cols": 1}
            dst = slot + ordinal % RINGS
            self.build.add(Opcode.LOAD, ISSUE.at("extras", step), pe=pe, operand=3 + index, dst=dst, **tile)

    def _load_row(self, index: int, step: Array, pe: Array) -> None:
        """Emit the loads of a row, for tiles [n]: once for those after one another of the same columns.

        The PEs that share a tile of b share it too.
        """
        fresh = self._new_columns()[step // self.plan.local["k"]]
        finishes = np.zeros(self.valid.shape, bool)
        finishes[step[fresh], pe[fresh]] = True
        cast = self.plan.cast("b")
        leaders, work = self._groups(cast, finishes)
        step, group = np.nonzero(work)
        lead = leaders[group]
        self.build.add(
            Opcode.LOAD,
            ISSUE.at("extras", step),
            pe=lead,
            cast=cast,
            operand=3 + index,
            dst=self.extra_slots[index] + self._row_turn(step),
            row=0,
            rows=1,
            col=self.n0[step, lead],
            cols=self.n[step, lead],
        )

    def _new_columns(self) -> Array:
        """Return, [tile], whether a tile that a PE finishes has other columns than the one before."""
        column = self.tile["n"][:: self.plan.local["k"], 0]
        return np.append(True, column[1:] != column[:-1])

    def _row_turn(self, step: Array) -> Array:
        """Return the place in its ring of the row that the tile of step[n] takes, [n]."""
        return (np.cumsum(self._new_columns()) - 1)[step // self.plan.local["k"]] % RINGS
