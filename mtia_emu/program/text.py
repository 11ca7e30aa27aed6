"""Programs as text: launches, blocks, and a line for each command."""

from __future__ import annotations

from typing import Any

from .commands import COMMANDS
from .isa import Block, Opcode, Program


def dump_command(c: Any, block: Block) -> str:
    """Return one command as a line of text."""
    op = Opcode(int(c["op"]))
    return f"{op.name.lower():7s} pe{c['pe']:<3d} {COMMANDS[op].show(c, block)}"


def dump(program: Program, *, commands: int = 40) -> str:
    """Return the program as text: the launches, then each block with its first `commands` commands."""
    lines = [f"program {program.model} for {program.chip['name']} ({program.dtype})"]
    lines += [f"  dram {program.dram_bytes} bytes, sram {program.sram_bytes} bytes", "launches"]
    for launch in program.launches:
        places = ", ".join(f"0x{a:x}" for a in launch.addresses)
        lines.append(f"  {launch.name}: block {launch.block} at {places}")
    for index, block in enumerate(program.blocks):
        lines.append(f"block {index} {block.kernel} {block.mapping}".rstrip() + _bands_text(block))
        lines += [f"  %{i} : {x}" for i, x in enumerate(block.operands)]
        lines += [
            f"  s{i} : {s.dtype} {s.bytes} bytes at {'acc' if s.accumulator else 'local'} {s.offset}"
            for i, s in enumerate(block.slots)
        ]
        lines += ["  " + dump_command(c, block) for c in block.commands[:commands]]
        if len(block.commands) > commands:
            lines.append(f"  ... {len(block.commands) - commands} more commands")
    return "\n".join(lines) + "\n"


def _bands_text(block: Block) -> str:
    return f" bands from rows 0, {', '.join(map(str, block.bands))}" if block.bands else ""
