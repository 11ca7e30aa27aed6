"""Plant every mutant of the table, one at a time, and say which the nearest tests notice.

Exits with 1 where they notice fewer than `LEAST` of all, where a mutant's place is gone, or where the tests
fail without any.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mtia_emu.settings import cache_folder

from .change import places
from .table import ROOT, Misplaced, Mutant, mutants

LEAST = 0.9
PATIENCE_S = 180.0  # of one mutant's tests: what takes longer has been noticed
KILLED, SURVIVED, ERROR = "killed", "SURVIVED", "ERROR"
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # exits of pytest; a module that fails to be imported interrupts it


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: its number, the word for it, the seconds taken, and what pytest said last."""

    number: int
    word: str
    seconds: float
    said: str = ""


def planted(number: int, tests: tuple[str, ...], *, jitted: bool) -> tuple[int | None, str]:
    """Run tests with a mutant, by its number, in a process of its own.

    Return how pytest exits (None: it took too long), and the last that it said. What is kept on disk is kept
    by the text of files, which a mutant does not change: each has a folder of its own. Compiled code alone is
    shared; where the mutant's module has some, all runs as Python.
    """
    with tempfile.TemporaryDirectory(prefix="mtia-emu-mutant-") as folder:
        env = os.environ | {"PYTHONPATH": "tests", "MTIA_EMU_CACHE": folder, "OPENBLAS_NUM_THREADS": "1"}
        env |= {"NUMBA_DISABLE_JIT": "1"} if jitted else {"NUMBA_CACHE_DIR": _compiled()}
        words = [sys.executable, "-m", "mutants.child", str(number), "--", *(f"tests/{x}" for x in tests)]
        try:
            ran = subprocess.run(
                words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"no end within {PATIENCE_S:.0f} s"
    lines = [x for x in (ran.stdout + ran.stderr).splitlines() if x.strip()]
    failed = [x for x in lines if x.startswith(("FAILED", "ERROR"))]
    return ran.returncode, (failed or lines or [""])[-1]


def _compiled() -> str:
    """Return the folder of compiled code: the user's own, where it stays."""
    return os.environ.get("NUMBA_CACHE_DIR") or str(cache_folder() or tempfile.gettempdir())


def judge(number: int, mutant: Mutant) -> Verdict:
    """Return what the nearest tests make of a mutant."""
    begin = time.monotonic()
    try:
        places(mutant.file.read_text(encoding="utf-8"), mutant)
    except Misplaced as error:
        return Verdict(number, ERROR, 0.0, str(error))
    exit_code, said = planted(number, mutant.tests, jitted=mutant.jitted)
    word = {PASSED: SURVIVED, FAILED: KILLED, INTERRUPTED: KILLED, None: KILLED}.get(exit_code, ERROR)
    return Verdict(number, word, time.monotonic() - begin, said)


def sound(tests: tuple[str, ...], *, jitted: bool) -> str:
    """Return what fails without any mutant, empty where nothing does."""
    exit_code, said = planted(-1, tests, jitted=jitted)
    return "" if exit_code == PASSED else f"without a mutant, {' '.join(tests)}: {said}"


def main() -> int:
    """Judge the mutants and print what became of them."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name has one of these words")
    parser.add_argument("--workers", type=int, default=2, help="how many at once")
    given = parser.parse_args()
    table = mutants()
    asked = [i for i, x in enumerate(table) if not given.words or any(w in x.name for w in given.words)]
    begin = time.monotonic()
    with ThreadPoolExecutor(given.workers) as pool:
        runs = sorted({(table[i].tests, table[i].jitted) for i in asked if _placed(table[i])})
        faults = [x for x in pool.map(lambda run: sound(run[0], jitted=run[1]), runs) if x]
        verdicts = []
        for verdict in pool.map(lambda i: judge(i, table[i]), [] if faults else asked):
            verdicts.append(verdict)
            _print(verdict, table[verdict.number])
    for fault in faults:
        print(f"{ERROR} {fault}")
    return _summary(verdicts, time.monotonic() - begin, faults)


def _placed(mutant: Mutant) -> bool:
    try:
        return mutant.file.is_file()
    except Misplaced:
        return False


def _print(verdict: Verdict, mutant: Mutant) -> None:
    said = f"\n    {verdict.said}" if verdict.word != KILLED else ""
    print(f"{verdict.word:8s} {verdict.seconds:5.1f} s  {mutant.name}   # {mutant.means}{said}", flush=True)


def _summary(verdicts: list[Verdict], seconds: float, faults: list[str]) -> int:
    counts = {word: sum(v.word == word for v in verdicts) for word in (KILLED, SURVIVED, ERROR)}
    judged = counts[KILLED] + counts[SURVIVED]
    share = counts[KILLED] / judged if judged else 0.0
    print(
        f"{judged} mutants: {counts[KILLED]} killed, {counts[SURVIVED]} survived ({share:.0%} killed, "
        f"at least {LEAST:.0%} asked for); {counts[ERROR]} misplaced; {seconds:.0f} s"
    )
    return int(bool(faults) or counts[ERROR] > 0 or share < LEAST)


if __name__ == "__main__":
    sys.exit(main())
