"""Die area and the cost to make a chip, by component, each number with its source in `silicon.toml`."""

from .area import Area, area
from .cost import Cost, cost
from .facts import CASES, Device, Silicon, load_silicon
from .powered import nearest_node, powered_mm2

__all__ = [
    "CASES",
    "Area",
    "Cost",
    "Device",
    "Silicon",
    "area",
    "cost",
    "load_silicon",
    "nearest_node",
    "powered_mm2",
]
