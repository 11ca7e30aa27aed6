"""Which code of ours made a result: what is kept is used again only by the code that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from .. import __version__

PACKAGES = ("mtia_emu", "mtia_emu.compiler", "mtia_emu.kernels")


@cache
def code_digest() -> str:
    """Return a digest of the product's own code and data: a version number says too little while it grows.

    A checkout and a wheel of it have the same one, though `compiler` and `kernels` lie elsewhere.
    """
    files: dict[str, Path] = {}
    for package in PACKAGES:
        root = Path(str(resources.files(package)))
        below = "/".join(package.split(".")[1:])
        for file in (f for f in root.rglob("*") if f.suffix in (".py", ".toml")):
            files[f"{below}/{file.relative_to(root).as_posix()}".lstrip("/")] = file
    return digest_of((name, files[name].read_bytes()) for name in sorted(files))


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return a digest of this version's files: their names below the package, and what is in them."""
    digest = hashlib.sha256(__version__.encode())
    for name, content in files:
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:16]
