"""The only door by which the product writes files: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from .scratch import keep_locked, remove_drafts

DRAFT, ENDING = ".mtia-emu-", ".tmp"
Content = bytes | Callable[[IO[bytes]], None]


def write_atomic(path: str | os.PathLike[str], data: Content) -> None:
    """Write `data`, bytes or a function that writes to an open file, to `path`: whole, or not at all.

    The content goes to a temporary file in the same folder, is synced, and takes the place of `path` in one
    step; whatever goes wrong, the temporary file is removed and a file that was at `path` is as before. A
    link is followed and the mode of a replaced file is kept. A device or pipe (/dev/stdout) is written to
    directly. Raise `UserError` on any `OSError`, saying what, where and what would be right.
    """
    target = os.fspath(path)
    try:
        mode = _mode(target)
        if _is_stream(target, mode):
            _fill(target, os.O_APPEND, data)
        else:
            _replace(os.path.realpath(target), mode, data)
    except OSError as error:
        raise UserError(f"cannot write {target!r}: {_reason(target, error)}") from error
    except ValueError as error:
        if "\0" not in target:
            raise
        raise UserError(f"cannot write {target!r}: a path has no null character") from error


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as `json_text`."""
    write_atomic(path, json_text(value).encode())


def json_text(value: object) -> str:
    """Return `value` as indented JSON. A number that is not finite becomes null, since JSON has none."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def valid(name: str) -> str:
    """Return a file's name as text that can be written: bytes that are not UTF-8 as backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> Any:
    """Return `value` with null for each float that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mode(target: str) -> int | None:
    """Return the mode of what stands at `target`, or None; raise for a folder and for an empty name."""
    if not target:
        raise FileNotFoundError(errno.ENOENT, "no file name")
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if target.endswith(os.sep) or (mode is not None and stat.S_ISDIR(mode)):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    return mode


def _is_stream(target: str, mode: int | None) -> bool:
    """Return whether `target` must not be replaced: a device, a pipe, or whatever /dev/stdout leads to."""
    return mode is not None and (not stat.S_ISREG(mode) or target.startswith(("/dev/", "/proc/")))


def _replace(target: str, mode: int | None, data: Content) -> None:
    """Write beside `target`, then put the new file in its place; drafts of killed processes go."""
    folder = os.path.dirname(target)
    remove_drafts(folder or os.curdir, DRAFT, ENDING)
    beside = os.path.join(folder, f"{DRAFT}{secrets.token_hex(8)}{ENDING}")
    try:
        _fill(beside, os.O_CREAT | os.O_EXCL, data, sync=True)
        if mode is not None:
            os.chmod(beside, stat.S_IMODE(mode))
        os.replace(beside, target)
    except BaseException:  # an interrupt too must leave nothing behind
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _fill(target: str, flags: int, data: Content, *, sync: bool = False) -> None:
    """Open `target` with `flags`, write `data`, and sync it to the disk if asked."""
    flags |= os.O_WRONLY | getattr(os, "O_BINARY", 0)
    with open(target, "wb", opener=lambda name, _: os.open(name, flags, 0o666)) as file:
        if sync:
            keep_locked(file)
        if callable(data):
            data(file)
        else:
            file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _reason(target: str, error: OSError) -> str:
    """Return what went wrong and what would be right."""
    folder = str(Path(target).parent)
    reasons = {
        errno.ENOENT: f"the folder {folder!r} does not exist; create it or choose another path",
        errno.ENOTDIR: f"{folder!r} is not a folder; choose another path",
        errno.EISDIR: f"it is a folder; name a file in it, as in {os.path.join(target, 'report.json')!r}",
        errno.EACCES: f"no permission to write in {folder!r}; choose another path",
        errno.EPERM: f"no permission to write in {folder!r}; choose another path",
        errno.EROFS: f"{folder!r} is on a read-only disk; choose another path",
        errno.ENOSPC: "the disk is full, nothing was kept; free some space or choose another disk",
        errno.EDQUOT: "the disk quota is used up, nothing was kept; free some space or choose another disk",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    if not target:
        return "the file name is empty; give a path such as 'report.json'"
    if error.errno == errno.ENOENT and Path(folder).is_dir():  # one that takes no new files
        return f"no file can be made in {folder!r}; choose another path"
    return reasons.get(error.errno or 0, error.strerror or str(error))
