"""What two small models come to, line by line; with the word `renumber` under other numbers of opcodes."""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np


def renumber() -> None:
    """Import `mtia_emu.program.isa` with its opcodes renumbered: backwards, with gaps."""
    spec = importlib.util.find_spec("mtia_emu.program.isa")
    assert spec is not None and spec.loader is not None and spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        head, opcodes, rest = re.split(r"(class Opcode\(IntEnum\):.*?\n\n\n)", file.read(), flags=re.DOTALL)
    opcodes = re.sub(r"= (\d+)", lambda number: f"= {200 - 7 * int(number[1])}", opcodes)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(head + opcodes + rest, spec.origin, "exec"), module.__dict__)


def say(model: str, chip_name: str, **dims: int) -> None:
    """Print a model's report, its commands, their times by both timings, and what it computes."""
    from mtia_emu.kernels.pace import pace

    import mtia_emu
    from mtia_emu import api
    from mtia_emu.engine.function import execute
    from mtia_emu.engine.run import report
    from mtia_emu.engine.timing import timeline
    from mtia_emu.program.text import dump
    from mtia_emu.program.verify import verify

    chip = mtia_emu.load_chip(chip_name)
    with api.open_model(model, dims, execute_seed=0) as source:
        program = api.compile_stages(source, chip).program
        outputs = execute(program, chip, source.examples(0)).outputs
    verify(program, chip)
    total = report(program, chip)
    print(total.cycles, total.joules, total.traffic)
    for name, values in outputs.items():
        print(name, float(np.abs(values.astype(np.float64)).sum()))
    for block in program.blocks:
        fast, slow = timeline(block, chip), timeline(block, chip, ordered=True)
        print(block.kernel, fast.cycles, slow.cycles, fast.busy, pace(block, chip))
    print(dump(program, commands=20))


if __name__ == "__main__":
    if "renumber" in sys.argv:
        renumber()
    from mtia_emu.program.isa import Opcode

    print("numbers", *sorted(map(int, Opcode)))
    say("zoo:llama-tiny", "tiny")
    say("zoo:dlrm-small", "tiny", batch=4)
