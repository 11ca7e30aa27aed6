"""The stages of compilation, in order: what each takes, gives and depends on.

`pipeline.compile_graph` walks this list; `mtia-emu show --at`, progress, `MTIA_EMU_DEBUG` and the pages of
the docs read it. It imports nothing, so that the command line can name the stages at once.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """One stage: it `takes` results of stages before it and `gives` one, each by name.

    Beside what it takes it depends on the options that name it in their `decides` (`Options.deciding`), with
    `tuned` on how mappings are chosen, and on tables of the `chip` ("*": all of it). Where it is `memoised`,
    its result serves again where all of these are the same (`reuse.memo`); the others are quick, or keep
    what they are made of. `at` is what `show --at` and `Compiled` call its result and `shown` what is printed
    then; "" where it has no text, and `form` is what it is: a "graph", a "schedule" or a "program".
    """

    name: str
    takes: tuple[str, ...]
    gives: str
    does: str
    chip: tuple[str, ...] = ()
    memoised: bool = False
    tuned: bool = False
    at: str = ""
    shown: str = ""
    form: str = "graph"

    @property
    def noun(self) -> str:
        """Return what `show --at` calls its result, as a noun: a word alone says which graph it is."""
        return self.at if self.at == self.form else f"{self.at} {self.form}"


ENGINE = (
    "clock_hz",
    "dram",
    "grid",
    "kernels",
    "launch",
    "noc",
    "pe",
    "power",
    "sram",
)  # all but prices and areas
STAGES = (
    Stage(
        "load",
        (),
        "onnx",
        "The file, or a graph's text, as a graph of our ops with static shapes.",
        at="onnx",
        shown="as imported",
    ),
    Stage("own", ("onnx",), "own", "The type of float that the model itself computes in.", memoised=True),
    Stage(
        "format",
        ("own",),
        "format",
        "The floats that it runs in, and the type of weights that are quantised.",
        chip=("name", "pe"),
    ),
    Stage(
        "fuse",
        ("onnx", "own", "format"),
        "fused",
        "The passes that know no chip.",
        memoised=True,
        at="fused",
        shown="as other machines are given it",
    ),
    Stage(
        "count", ("fused",), "asked", "The work of each node, and groups of nodes for a GPU.", memoised=True
    ),
    Stage(
        "suit",
        ("fused", "own", "format"),
        "graph",
        "The passes that suit the graph to a chip.",
        chip=("sram",),
        memoised=True,
        at="graph",
        shown="after all passes",
    ),
    Stage(
        "schedule",
        ("graph",),
        "calls",
        "A step for each kernel call, on views of buffers.",
        chip=ENGINE,
        memoised=True,
        tuned=True,
    ),
    Stage(
        "beside",
        ("calls",),
        "moments",
        "Which steps wait for nothing of each other: those may share a launch.",
        chip=("grid", "sram"),
        memoised=True,
        tuned=True,
    ),
    Stage(
        "place",
        ("moments",),
        "placement",
        "The memory and the address of each buffer.",
        chip=("sram",),
        memoised=True,
    ),
    Stage(
        "describe",
        ("onnx", "format", "asked", "moments", "placement"),
        "about",
        "What the program says of the model: name, types, notes.",
        chip=("dram",),
    ),
    Stage(
        "emit",
        ("moments", "placement"),
        "launched",
        "A block for each distinct kernel call, joined where steps run side by side, and the launches.",
        chip=ENGINE,
        tuned=True,
        at="schedule",
        shown="kernels and buffers",
        form="schedule",
    ),
    Stage(
        "prefetch",
        ("launched", "placement"),
        "ahead",
        "Weights of later launches that launches before them read into SRAM.",
        chip=("clock_hz", "dram", "grid", "noc", "pe", "power", "sram"),
    ),
    Stage(
        "assemble",
        ("launched", "placement", "about", "ahead"),
        "program",
        "Blocks, launches and bindings as one program.",
        chip=("*",),
        at="program",
        shown="commands",
        form="program",
    ),
)


def stage_named(name: str) -> Stage:
    """Return the stage of that name."""
    return next(stage for stage in STAGES if stage.name == name)


def stages_from(name: str) -> tuple[Stage, ...]:
    """Return the stage of that name and all behind it."""
    return STAGES[STAGES.index(stage_named(name)) :]
