"""Commands by who uses them: how `--help` lists them, and what the program says when it is called alone."""

from __future__ import annotations

GROUPS = {  # who asks what, and by which commands
    "A model on a chip": ("run", "explain", "diff", "gemm", "tbe", "timeline", "zoo", "gpus"),
    "Architects: which chip to build": ("chips", "import", "area", "sweep", "report"),
    "Compiler engineers: passes, programs, faults": (
        "show",
        "opt",
        "compile",
        "fuzz",
        "reduce",
        "conformance",
    ),
    "Many chips, training": ("systems", "collective", "shard", "train"),
    "Serving and fleets": ("serve", "steps", "rank", "fleet", "plan"),
    "This program": ("completion",),
}
OTHERS = "More"
GREETING = """mtia-emu says what an AI chip like Meta's MTIA does on real models: time, joules, bounds.

Three things to do first:

  mtia-emu run zoo:dlrm-small --check
      what a model takes on the chip, beside a GPU, its outputs checked
  mtia-emu explain zoo:llama-3-8b --dim seq=1 --dim past=2048
      what bounds each layer, and which parameter of the chip would help
  mtia-emu sweep --model zoo:dlrm-small --set "dram.channels=8..32 step 8" -o sweep.db
      which of many chips is best

mtia-emu --help lists all commands by who uses them; mtia-emu COMMAND --help has examples.
"""


def grouped(names: list[str]) -> dict[str, list[str]]:
    """Return names of commands by group, in the order of the groups; what is in none comes last."""
    out = {title: [name for name in members if name in names] for title, members in GROUPS.items()}
    placed = {name for members in out.values() for name in members}
    out[OTHERS] = [name for name in names if name not in placed]
    return {title: members for title, members in out.items() if members}
