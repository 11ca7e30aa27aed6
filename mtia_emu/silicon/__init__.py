"""Die area and the cost to make a chip, by component, each number with its source in `silicon.toml`."""

from .area import Area, area
from .cost import Cost, cost
from .facts import CASES, Device, Silicon, load_silicon

__all__ = ["CASES", "Area", "Cost", "Device", "Silicon", "area", "cost", "load_silicon"]
