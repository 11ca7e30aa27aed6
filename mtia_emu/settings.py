"""The flags that the environment sets; `docs/reference/settings.md` is printed from `FLAGS`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Flag:
    """One environment variable: its name, its default and what it does."""

    name: str
    default: str
    text: str

    def value(self) -> str:
        """Return the variable's value, or its default."""
        return os.environ.get(self.name, self.default)

    def on(self) -> bool:
        """Return whether the variable is anything but 0 or nothing."""
        return self.value() not in ("", "0")


DEBUG = Flag(
    "MTIA_EMU_DEBUG",
    "0",
    "1 a line a stage, and the traceback of a pass or kernel of yours that raises; 2 a row a layer, 3 the "
    "graph after every pass",
)
CHECK = Flag("MTIA_EMU_CHECK", "0", "1 poisons memory before execution and names the command that reads it")
MEMORY = Flag(
    "MTIA_EMU_MEMORY_BYTES", str(8 << 30), "the most memory that executing a model may take, in bytes"
)
CACHE = Flag(
    "MTIA_EMU_CACHE",
    "",
    "folder for compiled code, simulated DRAM, times and costs of blocks, tuned mappings and matplotlib's "
    "list of fonts; empty means the user's cache folder. One that others can write to, or that is full, is "
    "not used",
)
TUNE_CACHE = Flag(
    "MTIA_EMU_TUNE_CACHE", "1", "0 keeps compilation from reading and writing choices of mappings"
)
BLOCKS = Flag(
    "MTIA_EMU_BLOCKS",
    "1",
    "0 makes and times every block of commands anew, instead of taking what is known of one that was "
    "compiled before",
)
ANSWERS = Flag(
    "MTIA_EMU_ANSWERS",
    "1",
    "0 does every command anew, instead of printing what the same one printed before (commands that execute "
    "a model or write a file always are)",
)
FLAGS = (DEBUG, CHECK, MEMORY, CACHE, TUNE_CACHE, BLOCKS, ANSWERS)


def integer(flag: Flag) -> int:
    """Return the flag's value as an integer; raise `UserError` when it is not one."""
    from .errors import UserError

    try:
        return int(flag.value())
    except ValueError:
        raise UserError(f"{flag.name} must be an integer, got {flag.value()!r}") from None


def cache_folder() -> Path | None:
    """Return the folder of what is kept between runs (`CACHE`), made or not; None where there is no home.

    `disk_cache` is the door to it.
    """
    if CACHE.value():
        return Path(CACHE.value())
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):  # else it does not count, as the XDG specification says
        return Path(home) / "mtia-emu"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "mtia-emu" if os.path.isabs(home) and home != os.sep else None
