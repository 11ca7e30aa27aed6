"""Time one LLM in GenZ, in the environment that `bench_peers.py` makes for it; it is no test.

Words: model, prefill or decode, tokens. Prints milliseconds on a chip of MTIA 2i's peaks with room for it.
"""

from __future__ import annotations

import sys

CHIP = {"Flops": 177, "Memory_size": 2_000_000, "Memory_BW": 204.8, "ICN": 32, "real_values": True}


def main(model: str, kind: str, tokens: int) -> None:
    """Print what GenZ finds."""
    from GenZ import decode_moddeling, prefill_moddeling

    given = {"model": model, "batch_size": 1, "system_name": CHIP, "bits": "bf16", "input_tokens": tokens}
    if kind == "prefill":
        print(prefill_moddeling(**given)["Latency"])
    else:
        print(decode_moddeling(**given, output_tokens=1, Bb=1)["Latency"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
