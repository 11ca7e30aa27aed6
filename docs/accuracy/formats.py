"""How near each number format keeps a pre-trained encoder to fp32, and what it costs.

pip install 'mtia-emu[accuracy]'
python docs/accuracy/formats.py    # writes the table into docs/accuracy-formats.md
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from markdown_table import table

from accuracy import encoder
from mtia_emu import api
from mtia_emu.machine.chip import load_chip
from mtia_emu.oracle import compare_outputs, expected_outputs

PAGE = Path(__file__).resolve().parents[1] / "accuracy-formats.md"
BEGIN, END = "<!-- measured: formats -->\n", "<!-- end -->"
SENTENCES = (  # each of 12 tokens; pairs of like meaning, then two of their own
    "The new movie is so great we liked it.",
    "The recent film was very good and we enjoyed.",
    "A man is quietly eating some food at home.",
    "Someone slowly eats a meal inside his own house.",
    "The stock market fell by four percent on monday.",
    "My cat sleeps on the warm sofa all day.",
)
TOKENS = 12
FEW = "quantise{weights=%s,activations=none}"
FORMATS = (
    ("mtia-2i", "fp16", "fp16"),
    ("mtia-2i", "bf16", "bf16"),
    ("mtia-2i", "int8, dynamic", "int8"),
    ("mtia-2i", "int8, static", "calibrated"),
    ("mtia-2i", "int8, static, 16 random samples", "quantise{activations=static,calibrate=16}"),
    ("mtia-2i", "int8 weights alone", FEW % "int8"),
    ("mtia-2i", "fp8_e4m3 weights alone", FEW % "fp8_e4m3"),
    ("mtia-2i", "int4 weights alone, blocks of 32", "int4"),
    ("mtia-2i", "int4 with zero points, blocks of 32", "quantise{weights=int4,zeros=true}"),
    ("mtia-2i", "int4 with zero points, blocks of 128", "quantise{weights=int4,zeros=true,group=128}"),
    ("mtia-300", "fp16", "fp16"),
    ("mtia-300", "fp8_e4m3, dynamic", "fp8"),
    ("mtia-300", "fp8_e5m2, dynamic", "fp8_e5m2"),
)


def ids(sentences: tuple[str, ...]) -> np.ndarray:
    """Return the tokens of sentences, which all have as many."""
    return np.asarray([encoder.encode(s) for s in sentences])


def measure(formats: tuple[tuple[str, str, str], ...] = FORMATS) -> list[list[str]]:
    """Return a row for each format: how near to fp32 in onnxruntime, cycles, joules, bytes of DRAM."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path, samples = Path(folder) / "model.onnx", Path(folder) / "samples.npz"
        encoder.write(path, TOKENS, 2)
        np.savez(samples, ids=ids(SENTENCES[4:]))  # static scales see other sentences than those compared
        source = api.Source(path, "all-minilm-l6-v2", {})
        pairs = [{"ids": ids(SENTENCES[i : i + 2])} for i in (0, 2)]
        expected = [expected_outputs(path, x).outputs for x in pairs]
        for chip, name, spelling in formats:
            if spelling == "calibrated":
                spelling = f"quantise{{activations=static,calibrate={samples}}}"
            program = api.compile_stages(source, load_chip(chip), dtype=spelling).program
            runs = [api.run_program(program, load_chip(chip), inputs=x, gpu=None) for x in pairs]
            found = [
                compare_outputs(r.outputs, e, 1).outputs["embedding"]
                for r, e in zip(runs, expected, strict=True)
            ]
            report = runs[0].report
            rows.append(
                [
                    chip,
                    name,
                    f"{min(d.cosine or 0 for d in found):.5f}",
                    f"{min(d.sqnr_db or 0 for d in found):.1f}",
                    f"{max(d.max_rel_error for d in found):.4f}",
                    f"{report.cycles:,.0f}",
                    f"{report.joules * 1e3:.3f}",
                    f"{(report.traffic.dram_read_bytes + report.traffic.dram_write_bytes) / 1e6:.2f}",
                ]
            )
            print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every format and write the table into the page."""
    head = ["chip", "format", "cosine", "SQNR dB", "max rel error", "cycles", "mJ", "DRAM MB"]
    made = table(head, measure())
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
