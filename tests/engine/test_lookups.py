"""Look-ups, and the cache before DRAM that serves some of them."""

from __future__ import annotations

from mtia_emu import api
from mtia_emu.machine.chip import load_chip
from mtia_emu.zoo.operators import Gemm, Tbe


def test_a_chip_whose_sram_has_no_limit_is_timed() -> None:
    """Its cache would be larger than is modelled: it is as large as that."""
    chip = load_chip("systolic", {"pe.matrix.rows": 128, "pe.matrix.cols": 128})
    for operator in (Gemm(256, 768, 256, "int8"), Tbe(2, 500, 64, 5, 16, "fp16", "uniform")):
        with api.operator_source(operator, None) as source:
            assert api.run_source(source, chip, gpu=None).report.cycles > 0


def test_a_product_on_an_array_takes_what_scale_sim_says() -> None:
    """SCALE-Sim 3: 12 folds of 2 rows + columns + m - 2 cycles; the last step here is one more."""
    chip = load_chip("systolic", {"pe.matrix.rows": 128, "pe.matrix.cols": 128})
    for m in (256, 1):
        with api.operator_source(Gemm(m, 768, 256, "int8"), None) as source:
            report = api.run_source(source, chip, gpu=None).report
        assert report.cycles == 12 * (2 * 128 + 128 + m - 2) + 1
        assert report.macs == m * 768 * 256
