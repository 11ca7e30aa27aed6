"""Run GEMMs in SCALE-Sim, in the environment that `bench_scalesim.py` makes for it; it is no test.

Its word is a JSON list of [m, k, n, rows, cols, dataflow]; the last line of stdout is a list of
[cycles, seconds].
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = 65536
FilterSramSzkB = 65536
OfmapSramSzkB = 65536
IfmapOffset = 0
FilterOffset = 100000000
OfmapOffset = 200000000
Dataflow = {dataflow}
Bandwidth = 1000000
ReadRequestBuffer = 512
WriteRequestBuffer = 512
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = False
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def run(m: int, k: int, n: int, rows: int, cols: int, dataflow: str, folder: Path) -> tuple[int, float]:
    """Return the compute cycles of one GEMM, counted from 1, and the seconds that SCALE-Sim took for it."""
    from scalesim.scale_sim import scalesim

    (folder / "run.cfg").write_text(CONFIG.format(rows=rows, cols=cols, dataflow=dataflow))
    (folder / "gemm.csv").write_text(f"Layer, M, N, K,\ngemm, {m}, {n}, {k},\n")
    (folder / "layout.csv").write_text("Layer,\n" + "gemm," + "1," * 12 + "\n")
    start = time.perf_counter()
    simulation = scalesim(
        save_disk_space=True,
        verbose=False,
        config=str(folder / "run.cfg"),
        topology=str(folder / "gemm.csv"),
        layout=str(folder / "layout.csv"),
        input_type_gemm=True,
    )
    simulation.run_scale(top_path=str(folder))
    seconds = time.perf_counter() - start
    (layer,) = simulation.runner.single_layer_sim_object_list
    return int(layer.get_compute_report_items()[1]) + 1, seconds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        done = [run(*job, folder=Path(work)) for job in json.loads(sys.argv[1])]
    print(json.dumps(done))
