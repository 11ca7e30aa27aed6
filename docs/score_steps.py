"""Print what MTIA 2i's steps of Llama-2-7B take, beside the limits that were published for it.

    python docs/score_steps.py

ISCA 2025, section 3.6: Llama2-7B on one MTIA 2i keeps 600 ms to the first token, and misses 60 ms a token.
"""

from __future__ import annotations

from mtia_emu import load_chip
from mtia_emu.options import Options
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.step_anchors import ServedModel
from mtia_emu.zoo.llama_parts import StepPart

FIRST_TOKEN_S, TOKEN_S = 0.6, 0.06
PROMPTS, CONTEXTS = (512, 1024, 2048), (512, 1024, 2048)


def main() -> None:
    """Print a prompt alone, then a sequence alone that decodes, at several sizes."""
    served = ServedModel("llama-2-7b", Accelerator(load_chip("mtia-2i")), Options(dtype="fp16"))
    for tokens in PROMPTS:
        seconds = served.step([StepPart(1, tokens, 0)]).seconds
        kept = "kept" if seconds <= FIRST_TOKEN_S else "missed"
        print(
            f"prompt of {tokens:5,} tokens    {seconds * 1e3:6.1f} ms   600 ms are {kept} (published: kept)"
        )
    for context in CONTEXTS:
        seconds = served.step([StepPart(1, 1, context - 1)]).seconds
        kept = "kept" if seconds <= TOKEN_S else "missed"
        print(
            f"a token after {context:5,}     {seconds * 1e3:6.1f} ms    60 ms are {kept} (published: missed)"
        )


if __name__ == "__main__":
    main()
