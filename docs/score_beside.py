"""Score layers side by side: each model with `--no-beside` and with `--beside`.

    python docs/score_beside.py [MODEL[,NAME=INT ...] ...]

A model is an ONNX file or zoo:NAME, on mtia-2i. Prints cycles and launches of both, how many launches have
several layers, and what the energy changes by; without a model the table of decision 0021, which is written
there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from markdown_table import table

from mtia_emu import api
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip

CHIP = "mtia-2i"
MODELS = (
    "zoo:dlrm-small,batch=512",
    "zoo:dlrm-mlperf,batch=512",
    "zoo:llama-3-8b,seq=1,past=2048",
    "zoo:llama-3-8b,seq=512",
    "zoo:llama-tiny,seq=8",
)
COLUMNS = ("model", "cycles, alone", "beside", "change", "launches, alone", "beside", "of several", "energy")
PAGE = Path(__file__).parent / "decisions" / "0021-side-by-side.md"
BEGIN, END = "<!-- measured: beside -->", "<!-- end -->"


def row(spec: str) -> tuple[str, ...]:
    """Return the cells of a model: with each layer alone, then side by side, and the change."""
    model, *sizes = spec.split(",")
    dims = {name: int(size) for name, size in (text.split("=") for text in sizes)}
    chip, found = load_chip(CHIP), []
    with api.open_model(model, dims) as source:
        for beside in (False, True):
            program = api.compile_stages(source, chip, beside=beside).program
            found.append((program, report(program, chip, api.example_lookups(source, program))))
    (single, alone), (program, done) = found
    return (
        " ".join([model, *sizes]),
        f"{alone.cycles:,}",
        f"{done.cycles:,}",
        f"{done.cycles / alone.cycles - 1:+.2%}",
        str(len(single.launches)),
        str(len(program.launches)),
        str(sum(bool(launch.parts) for launch in program.launches)),
        f"{done.joules / alone.joules - 1:+.2%}",
    )


def write(measured: str) -> None:
    """Put a table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")


def main(specs: list[str]) -> None:
    """Print the table of models, or print and write the page's."""
    measured = table(COLUMNS, [row(spec) for spec in specs or MODELS])
    print(measured)
    if not specs:
        write(measured)


if __name__ == "__main__":
    main(sys.argv[1:])
