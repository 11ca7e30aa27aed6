"""The chips that ship with the product, a TOML file each; the text of any chip's file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ...errors import UserError, refuse_unknown

MAX_FILE_BYTES = 1 << 18


def chip_names() -> list[str]:
    """Return the names of the chips that ship with the product."""
    folder = resources.files(__name__)
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def chip_text(name: str) -> tuple[str, str]:
    """Return the TOML text of a shipped chip or of a file, and where it came from."""
    if name.endswith(".toml") or "/" in name:
        return _file_text(Path(name)), name
    if name not in chip_names():
        raise refuse_unknown("chip", name, chip_names())
    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8"), name


def _file_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            f"chip file {path} is not a file; give a chip's name ({', '.join(chip_names())}) or a .toml file"
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(
            f"chip file {path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"chip file {path} cannot be read as text: {error}") from None
