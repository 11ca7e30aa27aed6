"""What is kept between runs, on disk: private to the user, whole or not at all, and never needed.

A folder that cannot be made or that another user could write is not used; a file that is damaged is as one
that is not there. Work goes on without, and standard error is told once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
from pathlib import Path

from .. import settings

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
DIGEST_BYTES = 32
_BINARY = getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
_said: set[str] = set()


def folder(*names: str, base: Path | None = None) -> Path | None:
    """Return a folder of the cache, made if need be; None where it cannot be used, having said why."""
    base = base or settings.cache_folder()
    if base is None:
        say_once("folder", "there is no home folder to keep compiled code in")
        return None
    place = base
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for name in ("", *names):
            place = place / name
            _own(place)
            if place != base or not settings.CACHE.value():
                place.chmod(stat.S_IRWXU)  # one that the user names is theirs to open for readers
    except OSError as error:
        reason = error.strerror or str(error)
        say_once("folder", f"the cache folder {str(place)!r} is not used: {reason}")
        return None
    return place


def _own(place: Path) -> None:
    """Make a folder that only this user may look into; raise `OSError` for one that others could write to."""
    place.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    status, link = place.stat(), place.lstat()
    if hasattr(os, "geteuid") and {status.st_uid, link.st_uid} != {os.geteuid()}:
        raise OSError(0, "it belongs to another user (right: one of your own, by MTIA_EMU_CACHE)")
    if os.name == "posix" and status.st_mode & OTHERS_WRITE:
        raise OSError(0, f"other users may write to it (right: chmod go-w {str(place)!r})")


def read(file: Path, most: int) -> bytes | None:
    """Return what `write` put into a file of up to `most` bytes; None where that is not what it holds.

    A file that is damaged, or that another user could have written, is removed.
    """
    try:
        with open(file, "rb", opener=lambda name, _: os.open(name, _READ)) as stream:
            status = os.fstat(stream.fileno())
            ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
            right = stat.S_ISREG(status.st_mode) and ours and not status.st_mode & OTHERS_WRITE
            data = stream.read(most + DIGEST_BYTES + 1) if right else b""
    except FileNotFoundError:
        return None
    except OSError:
        data = b""
    proof, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if len(content) <= most and proof == _digest(content):
        return content
    discard(file)
    return None


def discard(file: Path) -> None:
    """Remove a file of the cache that holds nothing of use; say so."""
    say_once("damaged", f"what was kept in {str(file.parent)!r} is damaged: it is made anew")
    with contextlib.suppress(OSError):
        file.unlink()


def write(file: Path, content: bytes) -> bool:
    """Write a file in one step, so that nobody reads half of it; return whether that could be done."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}.draft")
    try:
        with open(draft, "wb", opener=lambda name, _: os.open(name, _NEW, 0o600)) as stream:
            stream.write(_digest(content) + content)
        os.replace(draft, file)
    except BaseException as error:  # an interrupt too must leave nothing behind
        with contextlib.suppress(OSError):
            draft.unlink()
        if not isinstance(error, OSError):
            raise
        say_once("folder", f"nothing is kept in {str(file.parent)!r}: {error.strerror or error}")
        return False
    return True


def trim(place: Path, most: int) -> None:
    """Remove all but the `most` files of a folder that were written or touched last."""
    ages = []
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            with contextlib.suppress(OSError):  # another process removed it
                ages.append((file.stat().st_mtime, file))
    for _, old in sorted(ages)[: max(0, len(ages) - most)]:
        with contextlib.suppress(OSError):
            old.unlink()


def say_once(kind: str, text: str) -> None:
    """Print a note on standard error, the first of its kind in this process; workers say nothing."""
    if kind in _said or ("multiprocessing.spawn" in sys.modules and _is_child()):
        return
    _said.add(kind)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"note: {text}", file=sys.stderr, flush=True)


def _is_child() -> bool:
    from multiprocessing import parent_process

    return parent_process() is not None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
