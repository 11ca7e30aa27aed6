"""Put published and production streams of embedding look-ups through MTIA 2i's SRAM as a last-level cache.

    python docs/score_cache.py

224 MB of the 256 MB are the cache: one part of 32 MB stays scratch memory. 16 ways are an estimate. For the
published streams a line is a row; for models it has 128 bytes.
"""

from __future__ import annotations

import numpy as np

from mtia_emu import zoo
from mtia_emu.machine.units.cache import Cache, CacheShape, lines_of
from mtia_emu.streams import draw, histogram, histogram_names
from mtia_emu.zoo.bags import BagTables
from mtia_emu.zoo.models import MODELS

CACHE_BYTES = 224 << 20
WAYS = 16
ROWS = {"dlrm-2021": 128_435_723, "dlrm-2022": 110_259_238}  # rows looked up, from the histograms' own files
WARM, SCORED, CHUNK = 24_000_000, 8_000_000, 4_000_000  # look-ups
LINE_BYTES = 128
BATCHES = 20  # of a production model: the last one is scored
LARGE_BYTES = 1 << 30  # a table that no cache holds


def hits(name: str, row_bytes: int) -> tuple[float, float]:
    """Return the share of look-ups that an ideal static cache serves, and that least recent use does."""
    law, rows = histogram(name), ROWS[name]
    cache = Cache(CacheShape(bytes=CACHE_BYTES, line_bytes=row_bytes, ways=WAYS))
    scored = []
    for chunk in range((WARM + SCORED) // CHUNK):
        found = cache.access(draw(law, np.random.default_rng(chunk), rows, (CHUNK,))).mean()
        if chunk * CHUNK >= WARM:
            scored.append(found)
    return float(law.static_hits(np.array(CACHE_BYTES / row_bytes / rows))), float(np.mean(scored))


def production_hits(name: str) -> tuple[float, float]:
    """Return the share of lines that hit in a production model's last batch, and that of its large tables."""
    model = MODELS[name]
    assert isinstance(model, BagTables)
    cache = Cache(CacheShape(bytes=CACHE_BYTES, line_bytes=LINE_BYTES, ways=WAYS))
    row_bytes = [dim * 2 for dim in model.dims]
    table_bytes = np.array(model.rows) * row_bytes
    whole_lines = -(-table_bytes // LINE_BYTES) * LINE_BYTES
    start = np.cumsum(whole_lines) - whole_lines
    each: list[np.ndarray] = []
    for batch in range(BATCHES):
        rows = zoo.example_inputs(name, {}, batch)
        each = [
            cache.access(lines_of(start[t] + rows[f"indices_{t}"] * size, size, LINE_BYTES))
            for t, size in enumerate(row_bytes)
        ]
    large = [hit for hit, size in zip(each, table_bytes, strict=True) if size > LARGE_BYTES]
    return float(np.concatenate(each).mean()), float(np.concatenate(large or each).mean())


def main() -> None:
    """Print a line for each stream and size of row, then one for each production model."""
    for name in histogram_names():
        for row_bytes in (64, 128, 256):
            ideal, recent = hits(name, row_bytes)
            print(
                f"{name}, rows of {row_bytes:3} B: ideal static cache {ideal:.1%}, "
                f"least recent use {recent:.1%}"
            )
    for name in (n for n in zoo.zoo_names() if isinstance(MODELS[n], BagTables)):
        every, large = production_hits(name)
        print(f"{name}: {every:.1%} of lines hit; of those of tables above 1 GiB, or all, {large:.1%}")


if __name__ == "__main__":
    main()
