"""Hold the order and size of MTIA 2i's published gain by fewer remote jobs to the queues of `mtia-emu rank`.

    python docs/score_ranking.py

Published (ISCA 2025, section 7): a ranking model over two chips, its promise 100 ms. P99 fell from 99 to 86
ms when remote jobs were halved and times on the chips stayed the same. Figure 5 has about 1,520 requests a
second before and 1,790 after (digitised). The paper gives no times of jobs and no windows. Each row here
assumes some; none was chosen to meet the published values.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtia_emu.serving.ranking import JobTimes
from mtia_emu.serving.ranking_form import read_ranking
from mtia_emu.serving.ranking_queue import greatest_ranking_rate, serve_ranking, with_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "ranking-2-chips.toml"
JOBS_S = ((0.006, 0.006), (0.010, 0.010))  # remote, merge, of a full batch
WINDOWS = (2, 3, 4, 1 << 30)  # most in parallel
PUBLISHED = "published               99 -> 86 ms   x 0.87    1,520 -> 1,790   x 1.18"


def row(remote_s: float, merge_s: float, windows: int) -> str:
    """Return P99 before and after at the greatest rate before, and the greatest rates, as a line."""
    service, load = read_ranking(EXAMPLE)
    times = {
        name: JobTimes((256, 1024), (0.4 * full, full))
        for name, full in (("remote_s", remote_s), ("merge_s", merge_s))
    }
    before = with_model(service, **times, most_windows=windows, window_s=5 * remote_s)
    after = with_model(before, remote_jobs=1)
    rate, run = greatest_ranking_rate(before, load)
    faster, _ = greatest_ranking_rate(after, load)
    same = serve_ranking(after, replace(load, rate_per_s=rate))
    old, new = run.quantile(0.99), same.quantile(0.99)
    most = "any" if windows > 1 << 20 else str(windows)
    return (
        f"{remote_s * 1e3:4.0f} {merge_s * 1e3:5.0f} ms {most:>4}  {old * 1e3:7.0f} -> {new * 1e3:2.0f} ms "
        f"  x {new / old:.2f}   {rate:6,.0f} -> {faster:5,.0f}   x {faster / rate:.2f}"
    )


def main() -> None:
    """Print a row for each assumption, then what is published."""
    print("remote merge  most   P99 at one rate          requests/s that keep 100 ms")
    for remote_s, merge_s in JOBS_S:
        for windows in WINDOWS:
            print(row(remote_s, merge_s, windows), flush=True)
    print(PUBLISHED)


if __name__ == "__main__":
    main()
