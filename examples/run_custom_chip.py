"""Run a chip of your own, from custom_chip.toml, beside the chip that it was copied from."""

from __future__ import annotations

from pathlib import Path

import mtia_emu

CHIPS = ("mtia-2i", str(Path(__file__).parent / "custom_chip.toml"))
WORK = {
    "decoder, prefill of 512": ("zoo:llama-3.2-1b", {"seq": 512}),
    "decoder, one token": ("zoo:llama-3.2-1b", {"seq": 1, "past": 512}),
    "recommender": ("zoo:dlrm-mlperf", {"batch": 512}),
}


def main() -> None:
    """Print time and energy of each piece of work on each chip."""
    for title, (model, dims) in WORK.items():
        for chip in CHIPS:
            report = mtia_emu.run(model, chip, dims=dims, gpu=None).report
            print(
                f"{title:24s} {report.machine:10s} {report.seconds * 1e3:8.3f} ms "
                f"{report.joules * 1e3:8.1f} mJ"
            )


if __name__ == "__main__":
    main()
