"""Put the published streams of embedding look-ups through MTIA 2i's SRAM as a last-level cache.

    python docs/score_cache.py

224 MB of the 256 MB are the cache: one part of 32 MB stays scratch memory. Lines are rows; 16 ways are an
estimate.
"""

from __future__ import annotations

import numpy as np

from mtia_emu.streams import draw, histogram, histogram_names
from mtia_emu.units.cache import Cache, CacheShape

CACHE_BYTES = 224 << 20
WAYS = 16
ROWS = {"dlrm-2021": 128_435_723, "dlrm-2022": 110_259_238}  # rows looked up, from the histograms' own files
WARM, SCORED, CHUNK = 24_000_000, 8_000_000, 4_000_000  # look-ups


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


def main() -> None:
    """Print a line for each stream and size of row."""
    for name in histogram_names():
        for row_bytes in (64, 128, 256):
            ideal, recent = hits(name, row_bytes)
            print(
                f"{name}, rows of {row_bytes:3} B: ideal static cache {ideal:.1%}, "
                f"least recent use {recent:.1%}"
            )


if __name__ == "__main__":
    main()
