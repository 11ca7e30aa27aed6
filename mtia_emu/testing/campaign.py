"""Many random graphs, on every core: what was tried is kept, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pass_text import parse_passes

from .. import processes
from ..errors import UserError
from ..testing.brought import digest, own_motifs
from .fuzz import Mismatch, blamed, first_wrong, mismatch_of, numbered_graph
from .shrink import shrink

CHUNK = 50  # graphs that a worker is given at a time
AHEAD = 4  # chunks for each worker that wait
Progress = Callable[[str, int, int], None]
Save = Callable[[str], None]


@dataclass
class Campaign:
    """Which graphs of a seed have been tried, by chunk, and what was wrong; as it is kept in a file.

    `fired` counts the graphs on which each pass did something, where passes are tried; `code` tells the
    passes, motifs and compiler that were tried from others, as `brought.digest` does; `only` is the first
    word of the stages that are tried alone, "" for all.
    """

    seed: int
    passes: str | None = None
    chunks: list[int] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    fired: dict[str, int] = field(default_factory=dict)
    code: str = ""
    only: str = ""

    @property
    def tried(self) -> int:
        """Return how many graphs have been tried."""
        return len(self.chunks) * CHUNK

    def text(self) -> str:
        """Return the campaign as JSON."""
        saved = {
            "seed": self.seed,
            "passes": self.passes,
            "only": self.only,
            "done": sorted(self.chunks),
            "found": [asdict(mismatch) for mismatch in self.mismatches],
            "fired": self.fired,
            "code": self.code,
            "chunk": CHUNK,
        }
        return json.dumps(saved) + "\n"

    @staticmethod
    def read(path: Path, seed: int, passes: str | None, only: str = "") -> Campaign:
        """Return the campaign in a file, or a new one where there is none or it tried other code.

        Raises `UserError` for another's, or what is none.
        """
        code = digest(() if passes is None else parse_passes(passes))
        if not path.exists():
            return Campaign(seed, passes, code=code, only=only)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            mismatches = [Mismatch(int(f["number"]), str(f["stage"]), str(f["what"])) for f in kept["found"]]
            before = kept.get("only", "")
            same = (kept["seed"], kept["passes"], before, kept["chunk"]) == (seed, passes, only, CHUNK)
            tried = [int(number) for number in kept["done"]]
            fired = {str(name): int(count) for name, count in kept["fired"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} holds no fuzzing that can go on: {type(error).__name__}: {error}"
            ) from None
        if not same:
            raise UserError(
                f"{path} is of seed {kept['seed']}, passes {kept['passes']!r} and {before or 'all'} stages, "
                f"not of {seed}, {passes!r} and {only or 'all'} (right: another folder, or the same of each)"
            )
        if kept.get("code") != code:  # what was tried has changed since
            return Campaign(seed, passes, code=code, only=only)
        return Campaign(seed, passes, tried, mismatches, fired, code, only)


def run(
    campaign: Campaign,
    count: int,
    workers: int,
    save: Save,
    progress: Progress | None = None,
) -> Iterator[Mismatch]:
    """Try the first `count` graphs that have not been tried; yield what is wrong as it is found.

    `save` is given the campaign's text after each chunk. A chunk is tried whole, so a few graphs more may be
    tried than asked for. Raises `UserError` where a worker dies.
    """
    chunks = [c for c in range(-(-count // CHUNK)) if c not in set(campaign.chunks)]
    total = len(chunks) + len(campaign.chunks)
    for chunk, mismatches, fired in _tried(campaign, chunks, workers):
        campaign.chunks.append(chunk)
        campaign.mismatches += mismatches
        campaign.fired = dict(Counter(campaign.fired) + fired)
        save(campaign.text())
        if progress is not None:
            progress("fuzz", len(campaign.chunks) * CHUNK, total * CHUNK)
        yield from mismatches


def _tried(
    campaign: Campaign, chunks: Sequence[int], workers: int
) -> Iterator[tuple[int, list[Mismatch], Counter[str]]]:
    """Yield each chunk as it is done."""
    if workers == 1:
        yield from ((chunk, *_try(campaign.seed, chunk, campaign.passes, campaign.only)) for chunk in chunks)
        return
    with processes.pool(workers) as pool:
        yield from _spread(pool, campaign, iter(chunks), AHEAD * workers)


def _spread(
    pool: ProcessPoolExecutor, campaign: Campaign, left: Iterator[int], most: int
) -> Iterator[tuple[int, list[Mismatch], Counter[str]]]:
    """Yield each chunk as one of several processes has done it."""
    pending: dict[Future[tuple[list[Mismatch], Counter[str]]], int] = {}

    def given(chunk: int) -> tuple[int, int, str | None, str]:
        return campaign.seed, chunk, campaign.passes, campaign.only

    try:
        while True:
            while len(pending) < most and (chunk := next(left, None)) is not None:
                pending[pool.submit(_try, *given(chunk))] = chunk
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), *future.result()
    except BrokenProcessPool:
        tried = ", ".join(f"{c * CHUNK} to {c * CHUNK + CHUNK - 1}" for c in sorted(pending.values()))
        raise UserError(
            f"a worker died while it tried one of the graphs {tried} of seed {campaign.seed} "
            "(--workers 1 shows where)"
        ) from None


def _try(seed: int, chunk: int, passes: str | None, only: str) -> tuple[list[Mismatch], Counter[str]]:
    numbers, fired = range(chunk * CHUNK, (chunk + 1) * CHUNK), Counter[str]()
    tried = first_wrong(seed, numbers, passes, motifs_of(passes), fired, only)
    return [mismatch for mismatch in tried if mismatch is not None], fired


def motifs_of(passes: str | None) -> tuple[str, ...]:
    """Return the motifs that the packages of passes bring, by name, for passes as `--passes` has them."""
    return () if passes is None else own_motifs(parse_passes(passes))


def smallest(mismatch: Mismatch, seed: int, passes: str | None) -> tuple[Graph, str]:
    """Return the smallest part of a graph that is wrong in the same stage, and the pass to blame, or ""."""

    only = "" if passes is not None else mismatch.stage.partition(" ")[0]

    def fails(graph: Graph) -> bool:
        try:
            other: Any = mismatch_of(graph, seed, mismatch.number, passes, only=only)
        except Exception:  # a part that the oracle refuses
            return False
        return other is not None and other.stage == mismatch.stage

    small = shrink(numbered_graph(seed, mismatch.number, motifs_of(passes)), fails)
    return small, blamed(small, mismatch, seed, passes)
