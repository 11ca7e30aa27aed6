"""Every command on the chip `tiny`, worked out by hand: what it does, when, and whom it keeps busy.

tiny: 2 x 2 PEs at 1 GHz, PE 1 in column 1, PE 2 in row 1. Cycles: an issue 2, a hop 1, the set-up of a
transfer 4, SRAM's answer 10, DRAM's 50. Bytes a cycle: DMA port 16, link 32, local memory 64, SRAM 64, DRAM
16, layout unit 16, SIMD lanes 16, reduction 32. DRAM moves bursts of 64 B; a port addresses one run of bytes
a cycle. The matrix unit has 8 x 8 lanes for int8 and 4 x 8 for fp16; its pipeline is 4 deep.

A lone command starts once it is issued and ends when the slowest of what it needs is through, and the way
back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tiny import (
    ACC,
    ACROSS,
    AGAIN,
    AWAY,
    BYTES,
    FAR,
    INDEX,
    LEFT,
    MARKS,
    NEAR,
    OPERANDS,
    OUT,
    RESULT,
    RIGHT,
    SCRATCH,
    SMALL_A,
    SMALL_ACC,
    SMALL_B,
    TABLE,
    TILE,
    TILES,
    TURNED,
    WEIGHTS,
    WIDE,
    A,
    B,
    block,
    command,
    simd,
)

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.commands import RESOURCES
from mtia_emu.program.isa import (
    FIRST,
    IMMEDIATE,
    NO_SLOT,
    QUANTISED,
    REDUCTION_NAMES,
    VECTOR,
    Block,
    Cast,
    Opcode,
    Operand,
    Shape,
)
from mtia_emu.types import FP32, INT32, INT64

QUIET = dict.fromkeys((*RESOURCES, "local", "noc", "sram", "dram"), 0.0)


@dataclass(frozen=True)
class Worked:
    """One command and what it comes to.

    `counts` are its events: what is not named is 0, but a command is one issued and misses no cache. `busy`
    are the cycles of each resource; what is not named is 0, and issuing takes 2. `settings` change the chip.
    """

    block: Block
    counts: dict[str, float]
    end: float
    busy: dict[str, float]
    start: float = 2.0
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def opcode(self) -> Opcode:
        """Return the command's opcode."""
        return Opcode(int(self.block.commands["op"][0]))

    @property
    def chip(self) -> Chip:
        """Return tiny, with the case's settings."""
        return load_chip("tiny", self.settings)


def moved(data: float, links: int, runs: int, run_bytes: float, **more: float) -> dict[str, float]:
    """Return the events of `data` bytes that cross so many links, of runs of so many bytes, and others."""
    return {"noc_bytes": data, "noc_byte_hops": data * links, "runs": runs, "run_bytes": run_bytes, **more}


CHANGED = 8 * (1 - (7 / 8) ** 20) / 5  # of 8 rows those that 20 draws name, for a share of 4 draws

NAMED = 1 - (7 / 8) ** 20  # the share of 8 rows that 20 draws name
RUNS = len(OPERANDS)  # sources, starts and rows of 8 runs of 20 indices
WITH_RUNS = (*OPERANDS, *(Operand(INT32, (1, n), (n, 1), "sram", written=True) for n in (20, 9, 8)))


SOURCE1 = 2  # bits of the flags before those of the second source's shape
WORKED = {
    # 3 rows x 8 x 2 B = 48 B, one run. Two links to column 1: 48 x 2.
    # Port 48 / 16 = 3, link 48 / 32, SRAM and local memory 48 / 64. Back: 10 + 2 hops + 4. End 2 + 3 + 16.
    "load whole rows": Worked(
        block(command(Opcode.LOAD, pe=1, operand=NEAR, dst=A, rows=3, cols=8)),
        moved(48, 2, 1, 48, sram_read_bytes=48, local_write_bytes=48),
        21,
        {"dma": 3, "noc": 1.5, "sram": 0.75, "local": 0.75},
    ),
    # 3 runs of 4 x 2 B = 8 B: 24 B, but 3 bursts of 64 B = 192 B at the pins. PE 3 is in column 1: 2 links.
    # DRAM 192 / 16 = 12 is slower than the port: 3 runs, 3 cycles. Back: 50 + 2 + 4. End 2 + 12 + 56.
    "load parts of rows from DRAM": Worked(
        block(command(Opcode.LOAD, pe=3, operand=FAR, dst=A, row=1, rows=3, col=4, cols=4)),
        moved(24, 2, 3, 8, dram_read_bytes=192, local_write_bytes=24),
        70,
        {"dma": 3, "noc": 0.75, "dram": 12, "local": 0.375},
    ),
    # 128 B are read once and written by the 2 PEs of a row, over 2 links. End 2 + 128 / 16 + 10 + 2 + 4.
    "load into a row": Worked(
        block(command(Opcode.LOAD, pe=2, operand=NEAR, dst=A, cast=Cast.ROW, **TILE)),
        moved(128, 2, 1, 128, sram_read_bytes=128, local_write_bytes=256),
        26,
        {"dma": 8, "noc": 4, "sram": 2, "local": 2},
    ),
    # The same down column 1, whose 2 PEs are 1 and 2 links from the north edge.
    "load into a column": Worked(
        block(command(Opcode.LOAD, pe=1, operand=NEAR, dst=A, cast=Cast.COL, **TILE)),
        moved(128, 2, 1, 128, sram_read_bytes=128, local_write_bytes=256),
        26,
        {"dma": 8, "noc": 4, "sram": 2, "local": 2},
    ),
    # 4 PEs write 128 B each; the tree has 4 links, its longest way 2 rows and 2 columns. End 2 + 8 + 10 + 4 +
    # 4.
    "load into all": Worked(
        block(command(Opcode.LOAD, operand=NEAR, dst=A, cast=Cast.ALL, **TILE)),
        moved(128, 4, 1, 128, sram_read_bytes=128, local_write_bytes=512),
        28,
        {"dma": 8, "noc": 4, "sram": 2, "local": 2},
    ),
    # Row 1 alone is a band: 2 PEs and 2 links; the longest way is 1 row and 2 columns. End 2 + 8 + 10 + 3 +
    # 4.
    "load into all of a band": Worked(
        block(command(Opcode.LOAD, pe=2, operand=NEAR, dst=A, cast=Cast.ALL, **TILE), bands=(1,)),
        moved(128, 2, 1, 128, sram_read_bytes=128, local_write_bytes=256),
        27,
        {"dma": 8, "noc": 4, "sram": 2, "local": 2},
    ),
    # 4 rows x 8 columns that lie column by column: 8 runs of 4 x 2 B = 8 B; the port takes one a cycle.
    # Nothing is turned. End 2 + 8 + 10 + 1 + 4.
    "load column by column": Worked(
        block(command(Opcode.LOAD, operand=TURNED, dst=B, rows=4, cols=8)),
        moved(64, 1, 8, 8, sram_read_bytes=64, local_write_bytes=64),
        25,
        {"dma": 8, "noc": 2, "sram": 1, "local": 1},
    ),
    # All 128 B pass the layout unit, here of 4 B a cycle: 32 cycles, more than the port's 8. End 2 + 32 + 15.
    "load and turn": Worked(
        block(command(Opcode.LOAD, operand=ACROSS, dst=B, **TILE)),
        moved(128, 1, 1, 128, sram_read_bytes=128, local_write_bytes=128, transposed_bytes=128),
        49,
        {"dma": 32, "noc": 4, "sram": 2, "local": 2},
        settings={"pe.layout.bytes_per_cycle": 4},
    ),
    # 2 x 4 x 2 B = 16 B, one run for they lie as a tile: 1 burst, 64 / 16 = 4 cycles. End 2 + 4 + 50 + 1 + 4.
    "load a stored tile": Worked(
        block(command(Opcode.LOAD, operand=TILES, dst=B, rows=2, cols=4)),
        moved(16, 1, 1, 16, dram_read_bytes=64, local_write_bytes=16),
        61,
        {"dma": 1, "noc": 0.5, "dram": 4, "local": 0.25},
    ),
    # One row of 16 B is moved, 4 rows of it are written: 64 B. End 2 + 16 / 16 + 15.
    "load a row again and again": Worked(
        block(command(Opcode.LOAD, operand=AGAIN, dst=A, rows=4, cols=8)),
        moved(16, 1, 1, 16, sram_read_bytes=16, local_write_bytes=64),
        18,
        {"dma": 1, "noc": 0.5, "sram": 0.25, "local": 1},
    ),
    # 128 B out over 2 links; nobody waits for an answer of the memory. End 2 + 8 + 2 + 4.
    "store": Worked(
        block(command(Opcode.STORE, pe=1, operand=OUT, src0=RESULT, **TILE)),
        moved(128, 2, 1, 128, sram_write_bytes=128, local_read_bytes=128),
        16,
        {"dma": 8, "noc": 4, "sram": 2, "local": 2},
    ),
    # 3 runs of 8 B are 3 bursts written, 192 / 16 = 12. End 2 + 12 + 1 + 4.
    "store parts of rows to DRAM": Worked(
        block(command(Opcode.STORE, operand=AWAY, src0=RESULT, rows=3, cols=4)),
        moved(24, 1, 3, 8, dram_write_bytes=192, local_read_bytes=24),
        19,
        {"dma": 3, "noc": 0.75, "dram": 12, "local": 0.375},
    ),
    # 64 B from DRAM (4 cycles) to SRAM (1) over one link, by the chip's DMA: no core issues, no PE's link is
    # taken. End 4 + 50 + 1 + 4.
    "stage": Worked(
        block(command(Opcode.STAGE, operand=FAR, operand2=SCRATCH, stage=0, rows=4, cols=8)),
        moved(64, 1, 1, 64, dram_read_bytes=64, sram_write_bytes=64),
        59,
        {"dram": 4, "sram": 1, "issue": 0},
        start=0,
    ),
    # 3 rows of 16 B, a burst each, and 3 indices of 8 B, one burst: 256 B at the pins, 48 + 24 = 72 B on 2
    # links. 8 rows may be on their way, each for 50 + 2 + 4 = 56: 3 x 56 / 8 = 21. End 2 + 21 + 56.
    "gather": Worked(
        block(command(Opcode.GATHER, pe=1, operand=TABLE, operand2=INDEX, dst=A, rows=3, cols=8)),
        moved(72, 2, 3, 16, dram_read_bytes=256, local_write_bytes=48, rows=3),
        79,
        {"dma": 21, "noc": 2.25, "dram": 16, "local": 0.75},
    ),
    # 4 of 20 updates of 8 rows of 16 B, which change CHANGED rows. SRAM: 4 updates and CHANGED rows read, as
    # many written; DRAM: 4 indices of 8 B, a burst. One pass of radix: a key is counted and moved, 8 steps of
    # 4 cycles, and goes to SRAM and back with its place, 12 B. Network: rows, 32 B of indices, 96 B of keys,
    # over 2 links. 4 + CHANGED rows are asked for, 8 at once, each for 50 + 2 + 4: longer than 32 additions.
    # Sorting comes first. End 2 + 32 + 56 x rows / 8 + 56.
    "scatter": Worked(
        block(command(Opcode.SCATTER, pe=1, fn=1, operand=2, operand2=INDEX, row2=0, rows=4, cols=8, dst=A)),
        moved(
            16 * (4 + 2 * CHANGED) + 32 + 96,
            2,
            4 + CHANGED + CHANGED,
            16,
            dram_read_bytes=64,
            sram_read_bytes=16 * (4 + CHANGED) + 48,
            sram_write_bytes=16 * CHANGED + 48,
            local_write_bytes=16 * (4 + CHANGED),
            local_read_bytes=16 * (4 + CHANGED),
            rows=4 + CHANGED,
            scalar_elements=8,
            simd_passes=32,
        ),
        90 + 7 * (4 + CHANGED),
        {
            "dma": 32 + 7 * (4 + CHANGED),
            "noc": (16 * (4 + 2 * CHANGED) + 128) / 32,
            "dram": 4,
            "sram": (16 * (4 + 2 * CHANGED) + 96) / 64,
            "local": 2 * 16 * (4 + CHANGED) / 64,
        },
    ),
    # 4 of 20 indices into 8 rows. DRAM: 4 indices of 8 B, a burst. SRAM: 4 places of 8 B; keys as above, 48 B
    # there and back. Network: 32 + 32 + 96 = 160 B over 2 links. The sort takes 32, then the port 160 / 16 =
    # 10. End 2 + 42 + 56.
    "group": Worked(
        block(
            command(Opcode.GROUP, pe=1, operand=16, operand2=INDEX, rows=4, cols=1, k=8),
            operands=(*OPERANDS, Operand(INT64, (20, 1), (1, 1), "sram", written=True)),
        ),
        moved(
            160,
            2,
            4,
            8,
            dram_read_bytes=64,
            sram_read_bytes=48,
            sram_write_bytes=80,
            scalar_elements=8,
        ),
        100,
        {"dma": 42, "noc": 160 / 32, "dram": 4, "sram": 128 / 64},
    ),
    # 4 of 20 indices into 8 rows, in 8 runs. DRAM: 32 B of indices, a burst. SRAM: 4 sources and 4 x 8 / 20
    # of starts and of rows, 4 B each: 28.8; keys and places, 48 B there and back. Network: 32 + 28.8 + 96
    # over 2 links. The sort takes 32, then the port 156.8 / 16. End 2 + 41.8 + 56.
    "sort": Worked(
        block(
            command(Opcode.SORT, pe=1, operand=RUNS, operand2=INDEX, row2=-1, rows=4, cols=1, k=8),
            operands=WITH_RUNS,
        ),
        moved(
            156.8,
            2,
            1,
            32,
            dram_read_bytes=64,
            sram_read_bytes=48,
            sram_write_bytes=76.8,
            scalar_elements=8,
        ),
        99.8,
        {"dma": 41.8, "noc": 156.8 / 32, "dram": 4, "sram": 124.8 / 64},
    ),
    # 3 runs of 5 rows of 16 B, 5 sources and 4 starts of 4 B: 116 B over 2 links. 8 rows may be on their way,
    # each for 10 + 2 + 4 = 16: 5 x 16 / 8 = 10; to add 40 elements in fp32 takes 160 / 16, as long. Sums take
    # 96 B of local memory. End 2 + 10 + 16.
    "sum": Worked(
        block(
            command(Opcode.SUM, pe=1, operand=NEAR, operand2=RUNS, rows=3, cols=8, k=5, dst=WIDE),
            operands=WITH_RUNS,
        ),
        moved(
            116,
            2,
            5,
            16,
            sram_read_bytes=116,
            rows=5,
            simd_passes=40,
            local_write_bytes=176,
            local_read_bytes=80,
        ),
        28,
        {"dma": 10, "noc": 116 / 32, "sram": 116 / 64, "local": 4},
    ),
    # 3 rows of 16 B, a burst each, and their numbers, 12 B of SRAM; 20 draws name more than 8 of 32 rows, so
    # every run names one. 60 B over 2 links; 3 x 56 / 8 = 21. End 2 + 21 + 56.
    "fetch": Worked(
        block(
            command(Opcode.FETCH, pe=1, operand=TABLE, operand2=RUNS + 2, rows=3, cols=8, dst=A),
            operands=WITH_RUNS,
        ),
        moved(60, 2, 3, 16, dram_read_bytes=192, sram_read_bytes=12, rows=3, local_write_bytes=48),
        79,
        {"dma": 21, "noc": 60 / 32, "dram": 12, "sram": 12 / 64, "local": 0.75},
    ),
    # 4 runs in a table of 8 rows, of which 20 draws name NAMED each: 16 B of a row and 4 B of its number. The
    # port takes (64 NAMED + 16) / 16 cycles. Two hops and the set-up. End 2 + that + 6.
    "put": Worked(
        block(
            command(Opcode.PUT, pe=1, operand=OUT, operand2=RUNS + 2, rows=4, cols=8, src0=A),
            operands=WITH_RUNS,
        ),
        moved(
            64 * NAMED + 16,
            2,
            4 * NAMED,
            16,
            sram_read_bytes=16,
            sram_write_bytes=64 * NAMED,
            local_read_bytes=64 * NAMED,
        ),
        2 + 4 * NAMED + 1 + 6,
        {"dma": 4 * NAMED + 1, "noc": (64 * NAMED + 16) / 32, "sram": (64 * NAMED + 16) / 64, "local": NAMED},
    ),
    # 2 bags, 10 look-ups of 16 B rows. DRAM: 10 bursts, 80 B of indices in 2, 3 offsets in 1: 832 B. SRAM: 10
    # weights, 40 B. Network: 160 + 80 + 24 + 40 = 304 B over 2 links. Local memory: rows in and out again,
    # and 2 x 8 sums of 4 B. Each element is multiplied and added: 160 passes. Accumulates of 8 rows: 2 more
    # commands. A row comes in 16 / 16 = 1 and is added in 2 + 16 passes x 4 B / 16 = 6. A bag of 5 rows: 56
    # for its indices, 56 + 5 for its rows, 5 x 6 to add them: 147, two bags two at once: 147. 56 more for
    # offsets: 203. Start 3 x 2, end 6 + 203 + 56 + 4.
    "pool with weights": Worked(
        block(
            command(
                Opcode.POOL, pe=1, operand=TABLE, operand2=INDEX, row2=WEIGHTS, dst=WIDE, rows=2, cols=8, k=10
            )
        ),
        moved(
            304,
            2,
            10,
            16,
            dram_read_bytes=832,
            sram_read_bytes=40,
            local_write_bytes=224,
            local_read_bytes=160,
            rows=10,
            simd_passes=160,
            commands=3,
        ),
        269,
        {"dma": 203, "noc": 9.5, "dram": 52, "sram": 0.625, "local": 6, "issue": 6},
        start=6,
    ),
    # 1 bag, 20 look-ups of 8 codes, a scale and an offset: 16 B. DRAM: 20 bursts, 160 B of indices in 3, 2
    # offsets in 1: 1536 B. Each code is made a number and added: 320 passes. 3 accumulates. Chunks of 8, 8
    # and 4 rows; a row comes in 1, is added in 6. 8 come; 8 x 6 while the next come; 8 x 6 while the last
    # come; 4 x 6: 8 + 48 + 48 + 24 = 128. Indices and first rows take 2 x 55, offsets 55: 293, one bag at
    # once. Start 4 x 2, end 8 + 293 + 55 + 4.
    "pool rows with scales": Worked(
        block(
            command(
                Opcode.POOL,
                operand=BYTES,
                operand2=MARKS,
                row2=NO_SLOT,
                dst=WIDE,
                rows=1,
                cols=8,
                k=20,
                flags=QUANTISED,
            )
        ),
        moved(
            496,
            1,
            20,
            16,
            dram_read_bytes=1536,
            local_write_bytes=352,
            local_read_bytes=320,
            rows=20,
            simd_passes=320,
            commands=4,
        ),
        360,
        {"dma": 293, "noc": 15.5, "dram": 96, "local": 10.5, "issue": 8},
        start=8,
        settings={"kernels.bags_in_flight": 1},
    ),
    # 8 x 16 x 8 fp16: 16 / 4 = 4 folds of 8 rows each; a and b are read once: 128 x 2 + 128 x 2 B, 8 cycles.
    # The result comes after 4 x 8 = 32, the first fold's load 4 and the pipeline 4. End 2 + 32 + 8.
    "matmul fp16": Worked(
        block(command(Opcode.MATMUL, dst=ACC, src0=A, src1=B, k=16, flags=FIRST, **TILE)),
        {"macs": 1024, "mac_dtype": 2, "local_read_bytes": 512},
        42,
        {"array": 32, "local": 8},
    ),
    # 12 x 20 x 16 int8: 3 folds down, 2 across: 6 of 12 rows = 72. a passes twice: 480 B, b once: 320 B.
    # End 2 + 72 + 8 + 4: a fold's load takes 8.
    "matmul int8": Worked(
        block(
            command(
                Opcode.MATMUL,
                pe=2,
                dst=SMALL_ACC,
                src0=SMALL_A,
                src1=SMALL_B,
                rows=12,
                k=20,
                cols=16,
                flags=FIRST,
            )
        ),
        {"macs": 3840, "mac_dtype": 9, "local_read_bytes": 800},
        86,
        {"array": 72, "local": 12.5},
    ),
    # 2 rows pass in less time than the next fold's load, 4: 2 folds x 4 = 8. The 2 rows of the last fold and
    # the pipeline come on top. End 2 + 8 + 2 + 4. a 2 x 8 x 2 B = 32, b 8 x 8 x 2 B = 128.
    "matmul of few rows": Worked(
        block(command(Opcode.MATMUL, dst=ACC, src0=A, src1=B, rows=2, k=8, cols=8)),
        {"macs": 128, "mac_dtype": 2, "local_read_bytes": 160},
        16,
        {"array": 8, "local": 2.5},
    ),
    # 6 x 4 x 8 fp32 on the lanes, 4 multiply-adds a cycle: 192 / 4 = 48. b is read for each four rows of a:
    # twice. a 24 x 4 B = 96, b 2 x 32 x 4 B = 256. End 2 + 48 + 4.
    "matmul on the SIMD engine": Worked(
        block(
            command(Opcode.MATMUL, dst=ACC, src0=LEFT, src1=RIGHT, rows=6, k=4, cols=8, flags=FIRST | VECTOR)
        ),
        {"macs": 192, "mac_dtype": 1, "local_read_bytes": 352},
        54,
        {"simd": 48, "local": 5.5},
    ),
    # fp16 on the lanes is made fp32, and so is it priced: 48 cycles as before, half the bytes.
    "matmul fp16 on the SIMD engine": Worked(
        block(command(Opcode.MATMUL, dst=ACC, src0=A, src1=B, rows=6, k=4, cols=8, flags=FIRST | VECTOR)),
        {"macs": 192, "mac_dtype": 1, "local_read_bytes": 176},
        54,
        {"simd": 48, "local": 2.75},
    ),
    # 64 sums of 4 B = 256 B over one link to the next PE, each added there once. End 2 + 256 / 32 + 1.
    "reduce": Worked(
        block(command(Opcode.REDUCE, pe=1, src_pe=0, dst=ACC, **TILE)),
        {"noc_bytes": 256, "noc_byte_hops": 256, "simd_passes": 64},
        11,
        {"reduce": 8},
    ),
    # 32 fp16 and a row of 8 fp32: 64 + 32 B read, 64 written, 160 / 64 at the port. Of what passes whole the
    # widest has 2 B: 32 x 2 / 16 = 4. End 2 + 4 + 4.
    "add a row": Worked(
        block(simd("add", A, WIDE, shapes=Shape.ROW << SOURCE1)),
        {"simd_passes": 32, "local_read_bytes": 96, "local_write_bytes": 64},
        10,
        {"simd": 4, "local": 2.5},
    ),
    # Division takes 4 passes. A column of 4 fp32: 64 + 16 B read. 4 x 32 x 2 / 16 = 16. End 2 + 16 + 4.
    "divide by a column": Worked(
        block(simd("div", A, WIDE, shapes=Shape.COL << SOURCE1)),
        {"simd_passes": 128, "local_read_bytes": 80, "local_write_bytes": 64},
        22,
        {"simd": 16, "local": 2.25},
    ),
    # One element of 4 B and an immediate, which is none: 4 B read besides the 64.
    "choose an element or a number": Worked(
        block(simd("where", A, WIDE, IMMEDIATE, shapes=Shape.ONE << SOURCE1, imm=1.5)),
        {"simd_passes": 32, "local_read_bytes": 68, "local_write_bytes": 64},
        10,
        {"simd": 4, "local": 2.0625},
    ),
    # Accumulators are no local memory. 64 x 4 B x 2 passes / 16 = 32; 128 B are written. End 2 + 32 + 4.
    "exp of accumulators": Worked(
        block(simd("exp", ACC, rows=8)),
        {"simd_passes": 128, "local_write_bytes": 128},
        38,
        {"simd": 32, "local": 2},
    ),
    # 4 rows of 8 fp16: 64 B read, 4 maxima of 4 B written; the widest has 4 B: 32 x 4 / 16 = 8. End 2 + 8 +
    # 4.
    "fold rows": Worked(
        block(command(Opcode.FOLD, fn=REDUCTION_NAMES.index("max"), dst=WIDE, src0=A, rows=4, cols=8)),
        {"simd_passes": 32, "local_read_bytes": 64, "local_write_bytes": 16},
        14,
        {"simd": 8, "local": 1.25},
    ),
    # 4 rows of 8 fp16 pass once: 32 x 2 / 16 = 4. A heap of 2 takes 2 (1 + ln 4) elements of 8 through 2
    # levels: 9.545 steps of 4 cycles a row. 64 B read, 2 places of 1 B a row written. End 2 + 4 + 152.7 + 4.
    "find the two largest": Worked(
        block(command(Opcode.TOP, dst=SMALL_A, src0=A, rows=4, cols=8, k=2)),
        {
            "simd_passes": 32,
            "scalar_elements": 16 * (1 + math.log(4)),
            "local_read_bytes": 64,
            "local_write_bytes": 8,
        },
        10 + 64 * (1 + math.log(4)),
        {"simd": 4 + 64 * (1 + math.log(4)), "local": 1.125},
    ),
    # 8 elements of 2 B and their places of 1 B: 24 B read, 16 written, 4 cycles each. End 2 + 32.
    "pick two of each row": Worked(
        block(command(Opcode.PICK, dst=RESULT, src0=A, src1=SMALL_A, rows=4, cols=8, k=2)),
        {"scalar_elements": 8, "local_read_bytes": 24, "local_write_bytes": 16},
        34,
        {"simd": 32, "local": 0.625},
    ),
    # 80 B from DRAM in 2 bursts, 40 B to SRAM, all over one link. 20 elements x 4 cycles, then DRAM's answer:
    # 2 + 80 + 50.
    "scalar": Worked(
        block(
            command(Opcode.SCALAR, rows=20),
            operands=(
                Operand(FP32, (4, 5), (5, 1), "dram"),
                Operand(FP32, (10,), (1,), "sram", written=True),
            ),
        ),
        moved(120, 1, 1, 64, dram_read_bytes=128, sram_write_bytes=40, scalar_elements=20),
        132,
        {"core": 80, "dram": 8, "sram": 0.625},
    ),
}
