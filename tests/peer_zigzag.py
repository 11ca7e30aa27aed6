"""Map one product in ZigZag, in the environment that `bench_peers.py` makes for it; it is no test.

Words: m k n. Prints joules (in pJ) and cycles on ZigZag's own TPU-like core, an array of 32 x 32.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main(m: int, k: int, n: int) -> None:
    """Print what ZigZag finds."""
    import zigzag
    from zigzag.api import get_hardware_performance_zigzag

    inputs = Path(zigzag.__file__).parent / "inputs"
    layer = {
        "id": 0, "name": "gemm", "operator_type": "Gemm", "equation": "O[b][k]+=I[b][c]*W[c][k]",
        "dimension_relations": [], "loop_dims": ["B", "C", "K"], "loop_sizes": [m, k, n],
        "operand_precision": {"O": 16, "O_final": 16, "W": 16, "I": 16}, "operand_source": {"I": 0, "W": 0},
    }  # fmt: skip
    files = (str(inputs / kind / "tpu_like.yaml") for kind in ("hardware", "mapping"))
    with tempfile.TemporaryDirectory() as folder:
        found = get_hardware_performance_zigzag(
            [layer], *files, dump_folder=folder, loma_show_progress_bar=False
        )
    print(*found[:2])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
