"""How fast logic runs at a supply: the voltage that a clock needs, by the alpha-power law.

f ~ (V - Vth)^alpha / V (Sakurai and Newton, JSSC 1990). The chip files take alpha = 1.3, that paper's for a
short channel, and Vth = 0.38 V, between what two points each of the CPU and of the GPU on TSMC's 5 nm test
chip ask for: 1.5 GHz at 0.7 V and 3.25 GHz at 1.2 V; 0.66 GHz at 0.65 V and 1.43 GHz at 1.2 V (IEDM 2019,
through AnandTech, recalled). With it the CPU's upper point comes out 9 % too slow, the GPU's 6 % too fast.
Not fitted: it puts MTIA 2i's design clock of 1.1 GHz (ISCA 2025, table 2) at 0.74 V, N5's nominal supply,
where 1.35 GHz runs at 0.85 V.
"""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel, Field, model_validator

from .memory import STRICT, unit

HALVINGS = 60  # of the range in which a voltage is sought: to the last bit
SEARCHED_V = 100.0  # beyond any supply


class Power(BaseModel):
    """The clock at which the chip's numbers hold, and how its supply follows another clock."""

    model_config = STRICT

    nominal_hz: float = Field(
        gt=0,
        le=1e12,
        description="clock at which the supplies of `energy`, and the bandwidth and latency of `sram`, hold",
        json_schema_extra=unit("Hz"),
    )
    threshold_v: float = Field(
        ge=0, le=10, description="threshold voltage of the alpha-power law", json_schema_extra=unit("V")
    )
    alpha: float = Field(
        ge=1, le=2, description="exponent of the alpha-power law", json_schema_extra=unit("exponent")
    )
    least_v: float = Field(
        gt=0,
        le=10,
        description="least supply: slower clocks run at this one too",
        json_schema_extra=unit("V"),
    )
    most_v: float = Field(
        gt=0,
        le=10,
        description="largest supply for which the law is known: a report says where it is passed",
        json_schema_extra=unit("V"),
    )

    @model_validator(mode="after")
    def _in_order(self) -> Power:
        if not self.threshold_v < self.least_v <= self.most_v:
            raise ValueError(
                f"threshold_v {self.threshold_v:g}, least_v {self.least_v:g}, most_v {self.most_v:g} must "
                "rise in this order"
            )
        return self

    def supply_v(self, nominal_v: float, clock_hz: float) -> float:
        """Return the supply at a clock of what needs `nominal_v` at `nominal_hz`; never below `least_v`.

        A supply that is below `least_v` at the nominal clock stays where it is for all slower ones.
        """
        return _supply_v(nominal_v, clock_hz / self.nominal_hz, self.threshold_v, self.alpha, self.least_v)


def speed(volts: float, threshold_v: float, alpha: float) -> float:
    """Return how fast logic is at a supply above its threshold, in a unit of its own."""
    return (volts - threshold_v) ** alpha / volts


@lru_cache(maxsize=1 << 10)
def _supply_v(nominal_v: float, faster: float, threshold_v: float, alpha: float, least_v: float) -> float:
    """Return the supply at which logic that needs `nominal_v` is so many times as fast."""
    if faster == 1 or nominal_v <= threshold_v:
        return nominal_v
    wanted = faster * speed(nominal_v, threshold_v, alpha)
    low, high = min(least_v, nominal_v), SEARCHED_V
    if speed(low, threshold_v, alpha) >= wanted:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if speed(middle, threshold_v, alpha) < wanted else (low, middle)
    return high
