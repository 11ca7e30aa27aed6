"""The language between compiler and engine: commands, blocks, launches, their law and their file."""

from __future__ import annotations

from pathlib import Path


def is_program(path: Path) -> bool:
    """Return whether a file looks like a saved program: a zip."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except (OSError, ValueError):
        return False
