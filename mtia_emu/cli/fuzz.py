"""`mtia-emu fuzz`: random graphs through every pass, pipeline and format, held to onnxruntime."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ..errors import UserError
from . import options as o
from .output import EXIT_CHECK_FAILED, progress, say

STATE = "fuzz.json"
STAGES = {  # what a graph goes through, by the word that each stage's name begins with
    "reference": "the references of its ops",
    "import": "written as ONNX and imported",
    "pipeline": "all passes, in each number format",
    "split": "split over a random mesh, its inputs in random layouts",
    "program": "compiled for a random chip, and executed",
}
SELDOM = 0.05  # of the graphs: a pass that does something on fewer has hardly been tried


@click.command(short_help="Try the compiler, or passes of your own, on random graphs.")
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="INT",
    default=2000,
    show_default=True,
    help="Graphs to try, in fifties.",
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="INT", default=0, show_default=True, help="Seed of the graphs."
)
@click.option(
    "--passes",
    "spelling",
    metavar="TEXT",
    help="Passes to try, as for `opt`.  [default: import, every format's pipeline, programs]",
)
@click.option(
    "--only",
    type=click.Choice(list(STAGES)),
    default=None,
    help="Try one thing alone: " + "; ".join(f"{name}: {text}" for name, text in STAGES.items()) + ".",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="INT", help="Processes.  [default: one a core]"
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    callback=o.target,
    help="Keep what was tried, to go on there, and a small model of each mismatch.",
)
def fuzz(
    count: int, seed: int, spelling: str | None, only: str | None, workers: int | None, output: str | None
) -> None:
    """Try random graphs: what is made of each must compute what onnxruntime says that it computes.

    Graphs are made of what exporters write and what looks like it but is not, and of motifs that the packages
    of the passes bring. Exits 1 where anything is off, and where a pass that is tried did nothing on any
    graph: one that another package brings, or any where all are ours. With -o, a second run of the same seed
    goes on where the first was stopped, as long as neither the passes nor mtia-emu have changed.

    \b
    Examples:
      mtia-emu fuzz --count 2000
      mtia-emu fuzz --count 500 --passes legalise,fold,mine
      mtia-emu fuzz --count 500 --only split
      mtia-emu fuzz --count 100000 --seed 7 -o fuzzed
    """
    from ..files.writing import write_atomic
    from ..testing.campaign import Campaign, run

    if spelling is not None:
        if only is not None:
            raise UserError("--only is of what a graph goes through without --passes (right: one of the two)")
        from ..testing.campaign import motifs_of

        motifs_of(spelling)
    folder = None if output is None else _folder(output)
    one = only or ""
    campaign = Campaign(seed, spelling, only=one)
    if folder is not None:
        campaign = Campaign.read(folder / STATE, seed, spelling, one)
    if folder is not None and (folder / STATE).exists() and not campaign.chunks:
        say(f"{folder / STATE} is of other passes or another mtia-emu: begun anew", err=True)

    def save(text: str) -> None:
        if folder is not None:
            write_atomic(folder / STATE, text.encode())

    with progress() as tick:
        for mismatch in run(campaign, count, workers or os.cpu_count() or 1, save, tick):
            say(f"graph {mismatch.number} of seed {seed}: {mismatch.stage}: {mismatch.what}", err=True)
            _report(mismatch, seed, spelling, folder)
    idle = _fired(campaign.fired, spelling, campaign.tried)
    _conclude(len(campaign.mismatches), idle, campaign.tried, seed)


def _folder(output: str) -> Path:
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise UserError(f"--output {output!r} is no folder (right: a folder, or a new name)")
    path.mkdir(exist_ok=True)
    return path


def _report(mismatch: object, seed: int, spelling: str | None, folder: Path | None) -> None:
    """Shrink a graph that is wrong; say which pass is to blame, and keep the small one."""
    from mtia_emu.compiler import text
    from mtia_emu.compiler.graph_file import write_graph

    from ..testing.campaign import smallest
    from ..testing.fuzz import Mismatch

    assert isinstance(mismatch, Mismatch)
    small, blamed = smallest(mismatch, seed, spelling)
    if blamed:
        say(f"  wrong after pass {blamed}", err=True)
    if folder is not None:
        file = folder / f"seed-{seed}-graph-{mismatch.number}.ir"
        write_graph(file, small)
        say(f"  {file}: {len(small.nodes)} nodes", err=True)
    else:
        say(text.dump(small), err=True, nl=False)


def _fired(fired: dict[str, int], spelling: str | None, tried: int) -> list[str]:
    """Say on how many graphs each pass fired; return those that never did, of what others bring if any."""
    from mtia_emu.compiler.pass_text import parse_passes
    from mtia_emu.compiler.passes import PASSES

    steps = parse_passes(spelling or "")
    names = dict.fromkeys(step.spelling for step in steps)
    for name in names:
        count = fired.get(name, 0)
        seldom = count < SELDOM * tried
        hint = f": on fewer than {SELDOM:.0%}, so little was tried (right: a motif that it fires on)"
        say(f"{name} fired on {count} of {tried} graphs{hint if seldom else ''}", err=True)
    foreign = [step.spelling for step in steps if PASSES.get(step.name) is not type(step)]
    return [name for name in foreign or names if not fired.get(name)]


def _conclude(wrong: int, idle: list[str], tried: int, seed: int) -> None:
    if wrong:
        say(f"{wrong} of {tried} graphs of seed {seed} are off", err=True)
    elif idle:
        say(f"nothing was verified of {', '.join(idle)}: no graph made it fire", err=True)
    else:
        say(f"{tried} graphs of seed {seed}: no mismatch", err=True)
    if wrong or idle:
        sys.exit(EXIT_CHECK_FAILED)
