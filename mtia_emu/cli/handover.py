"""How engines for prompts hand caches over, as flags of `mtia-emu serve` say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..serving.handover import Handover

BYTES_PER_S = 50e9  # assumption where nothing is said: a NIC of 400 Gbit/s


def handover_of(flags: dict[str, Any]) -> Handover | None:
    """Return the handover, over the links of --system unless a rate is given; None without such engines."""
    from ..serving.handover import Handover

    engines, rate, latency_s = (flags[name] for name in ("prefill_engines", "link", "link_latency"))
    if engines is None:
        if rate is not None or latency_s is not None:
            raise UserError("--link and --link-latency are of --prefill-engines (right: with them)")
        return None
    if flags["system"] is None or rate is not None or latency_s is not None:
        return Handover(engines, BYTES_PER_S if rate is None else rate, latency_s or 0.0)
    from mtia_emu.compiler.partition.mesh import parse_parallel

    from ..study.handover_paths import handover_over
    from ..system.load import load_system

    chips = flags["chips_per_engine"] or parse_parallel(flags["parallel"]).chips
    return handover_over(load_system(flags["system"]), chips, engines, flags["engines"])
