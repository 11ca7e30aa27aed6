"""Servers, sites, money, carbon and programmes over what serving reports.

`mtia_emu.fleet(...)` answers a scenario: this module can be called like `answer.fleet`, as it has that name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This module: importing anything below it puts it where `mtia_emu.fleet` is looked up."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .answer import fleet

        return fleet(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
