"""The error bands of GPU files: the wider, the more of a GPU's constants are borrowed."""

from __future__ import annotations

from collections.abc import Mapping

from accuracy import gpu_bags, tables
from accuracy.gpu_borrow import GAPS, NEAREST
from accuracy.gpu_constants import ATTENTION, MATMUL, NARROW_KEYS
from accuracy.gpu_small import POWER as POWER_TABLES
from accuracy.gpu_write import write
from mtia_emu.gpu import gpu_names

RESIDUALS = "held-out rows, and the spread between public sources"
LENT = {
    "matmul": [*MATMUL, "rates.bf16.efficiency"], "attention": list(ATTENTION),
    "vector": ["row_step_s", *NARROW_KEYS],
}  # fmt: skip


def write_bands() -> None:
    """Put the error bands into every GPU's file: the wider, the more of its constants are borrowed."""
    from accuracy import gpu_bands as b
    from accuracy.gpu_scores import gpu

    gpu.cache_clear()  # the files have just been written
    kin, strangers = b.borrowed(LENT, b.KIN), b.borrowed(LENT, b.STRANGERS)
    own = {name: b.own(name) for name in tables.SYSTEMS}
    bag, watts = b.bag(), {name: b.joules(name) for name in POWER_TABLES}
    for name in gpu_names():
        other, doubt = NEAREST.get(name, name), kin if name in b.SAME else strangers
        for kind in LENT:
            donor = other if kind in own[other] else GAPS[other]["row_step_s"]
            parts = [own[donor][kind], *([doubt[kind]] if donor != name else [])]
            text = RESIDUALS if donor == name else f"as {donor}, with the doubt of what is borrowed"
            for which in (kind, "short_matmul") if kind == "matmul" else (kind,):
                _write_band(name, which, b.joined(*parts, b.spread(name, which)), text)
        if bag is not None:
            measured = name == gpu_bags.MEASURED
            parts = [bag] if measured else [bag, doubt["vector"], b.spread(name)]
            text = "held-out rows, 32 to 128 tables" if measured else f"as {gpu_bags.MEASURED}, borrowed"
            _write_band(name, "embedding_bag", b.joined(*parts), text)
        _write_joules(name, watts)


def _write_joules(name: str, watts: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Put the bands of joules into a GPU's file: an estimate of its power adds what two GPUs differ by."""
    from accuracy import gpu_bands as b

    mine = watts.get(name) or watts["h200-sxm"]
    for kind, ends in mine.items():
        if name in watts or name in SERVED_GPUS:
            _write_band(name, kind, ends, "sustained layers and served models")
        else:
            _write_band(name, kind, b.joined(ends, GUESSED_WATTS), "as h200-sxm; estimate: watts are guessed")


GUESSED_WATTS = (0.75, 1.33)
"""What guessed watts of a board may be off by. Estimate: the share of the TDP that active boards draw is 0.30
(B200) to 0.47 (H100) in what is measured, by which the H100's scaled watts would be off by a third."""
SERVED_GPUS = ("h100-sxm",)


def _write_band(name: str, kind: str, ends: tuple[float, float], source: str) -> None:
    from accuracy.gpu_bands import rounded

    low, high = rounded(ends)
    print(f"{name}: band of {kind}: {low:g} to {high:g}")
    values = {f"bands.{kind}.low": low, f"bands.{kind}.high": high}
    write(name, values, f"make fit-gpu: 80 % of measured / modelled, {source}")
