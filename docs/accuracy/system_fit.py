"""Fit the times of NCCL's protocols on half of the measured collectives; write them with their origin.

    python docs/accuracy/system_fit.py                  # every library
    python docs/accuracy/system_fit.py nccl-hopper --check    # print, write nothing

The rates of links are NCCL's own constants and stay. The other half of the rows is scored by
`docs/accuracy_systems.py`. The same data and seed give the same values.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accuracy import system_models as models
from accuracy import tables
from accuracy.score import SEED, halves, score
from mtia_emu.system.library import Library, load_library

FOLDER = tables.ROOT / "mtia_emu" / "system" / "libraries"
KEYS = [
    ("ll", "start_s"), ("ll", "hop_s"), ("ll", "most_bytes_per_s"),
    ("simple", "start_s"), ("simple", "hop_s"), ("simple", "copy_bytes_per_s"),
    ("p2p-ll", "start_s"), ("p2p-ll", "most_bytes_per_s"), ("p2p", "start_s"), ("p2p", "share"),
    ("nvls", "start_s"),
]  # fmt: skip
START = {"most_bytes_per_s": 5e10, "copy_bytes_per_s": 1e12, "share": 0.6, "hop_s": 1e-6}
STARTS = {"ll": 7e-6, "simple": 2e-5, "p2p-ll": 8e-6, "p2p": 1.5e-5, "nvls": 8e-5}
LOW = {"most_bytes_per_s": 1e9, "copy_bytes_per_s": 1e9, "share": 0.05}
HIGH = {"most_bytes_per_s": 1e14, "copy_bytes_per_s": 1e14, "share": 1.0}
SOFT = 0.05  # errors beyond this count less: a library's rare bad choice is no property of its protocols


def fitted(name: str) -> dict[tuple[str, str], float]:
    """Return the constants of a library by protocol and key; print the scores of both halves."""
    from scipy.optimize import least_squares

    library = load_library(name)
    have = {p.name for p in library.protocols}
    keys = [key for key in KEYS if key[0] in have]
    data = []
    for gpu in (g for g, (_, lib) in models.NCCL.items() if lib == name):
        rows = models.rows(gpu)
        if rows is None:
            sys.exit("the measured tables are not installed: pip install 'mtia-emu[accuracy]'")
        mine = halves(list(zip(rows.kind, rows.bytes, strict=True)))
        data.append((gpu, rows, mine, [models.parts(gpu, p, rows) for p in library.protocols]))

    def errors(x: np.ndarray, half: bool) -> list[np.ndarray]:
        at = changed(library, dict(zip(keys, np.exp(x), strict=True)))
        out = []
        for _, rows, mine, parts in data:
            times = [models.combined(p, each) for p, each in zip(at.protocols, parts, strict=True)]
            out.append((np.log(np.min(times, axis=0) / rows.seconds.to_numpy()))[mine == half])
        return out

    limits = [
        np.log([limit.get(key, other) for _, key in keys]) for limit, other in ((LOW, 1e-8), (HIGH, 1e-3))
    ]
    start = np.log([START.get(key, STARTS[protocol]) for protocol, key in keys])
    found = least_squares(
        lambda x: np.concatenate(errors(x, True)), start, bounds=limits, loss="soft_l1", f_scale=SOFT
    )
    for half in (True, False):
        for (gpu, *_), each in zip(data, errors(found.x, half), strict=True):
            s = score(np.exp(each), np.ones(len(each)))
            print(f"{gpu}, {'fitted' if half else 'held out'}: median {s.median:.1%}, 90 % {s.ninth:.1%}")
    return dict(zip(keys, np.exp(found.x).tolist(), strict=True))


def changed(library: Library, values: dict[tuple[str, str], float]) -> Library:
    """Return a library with other constants."""
    protocols = tuple(
        p.model_copy(update={key: value for (name, key), value in values.items() if name == p.name})
        for p in library.protocols
    )
    return library.model_copy(update={"protocols": protocols})


def write(name: str, values: dict[tuple[str, str], float]) -> None:
    """Put constants into a library's file, each with its origin."""
    path = FOLDER / f"{name}.toml"
    gpus = [g for g, (_, lib) in models.NCCL.items() if lib == name]
    origin = f"# fitted by system_fit.py: NCCL {tables.NCCL[gpus[0]]}, half of kinds and sizes (seed {SEED})"
    blocks = path.read_text(encoding="utf-8").split("[[protocols]]\n")
    for i, block in enumerate(blocks):
        for (protocol, key), value in values.items():
            if f'name = "{protocol}"\n' in block:
                block = re.sub(rf"^{key} = .*$", f"{key} = {value:.4g}  {origin}", block, flags=re.M)
        blocks[i] = block
    path.write_text("[[protocols]]\n".join(blocks), encoding="utf-8")


def main(words: Sequence[str]) -> None:
    """Fit the named libraries, or all."""
    parser = argparse.ArgumentParser()
    names = sorted({lib for _, lib in models.NCCL.values()})
    parser.add_argument("names", nargs="*", default=names)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(words)
    for name in given.names:
        values = fitted(name)
        for (protocol, key), value in values.items():
            print(f"  {protocol}.{key} = {value:.4g}")
        if not given.check:
            write(name, values)


if __name__ == "__main__":
    main(sys.argv[1:])
