"""Machine code that numba made of functions, kept on disk: a file for each function and types of operands.

numba's own cache stops work where a file of it is damaged or its disk is full, and loads whatever stands in
its folder. This one goes without (`disk_cache`): a file is loaded only where it is this user's and whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import disk_cache

MOST_FOLDERS = 64  # one for each text of each module that has compiled functions
MOST_BYTES = 1 << 26  # of one function's machine code
PATIENCE_S = 30.0  # that a process waits for another one's code before it compiles the function itself
POLL_S = 0.05


class CodeCache:
    """What numba asks for code of one function before it compiles, and gives code to after.

    `files` are the modules that the function and those that it calls come from, `options` those that numba
    compiles it with.
    """

    cache_path = ""  # numba shows it

    def __init__(self, function: Callable[..., Any], files: set[str], options: dict[str, Any]) -> None:
        import llvmlite
        import numba

        code = hashlib.sha256(function.__code__.co_code).hexdigest()
        versions = (sys.version, sys.implementation.cache_tag, numba.__version__, llvmlite.__version__)
        self.name = function.__name__
        self.source = (function.__module__, function.__qualname__, code, sorted(options.items()), versions)
        self.folder = _folder(files)
        self.turn: int | None = None  # the lock held while code is made that is to be kept

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the code for a signature, made by another process meanwhile or before; None without any."""
        self._end_turn()
        if self.folder is None:
            return None
        target.refresh()
        file = self._file(signature, target.codegen())
        code = self._loaded(file, target)
        if code is None and self._take_turn(file):
            code = self._loaded(file, target)
        if code is not None:
            self._end_turn()
        return code

    def _loaded(self, file: Path, target: Any) -> Any:
        from numba.core.compiler import CompileResult

        content = disk_cache.read(file, MOST_BYTES)
        if content is None:
            return None
        try:
            return CompileResult._rebuild(target, *pickle.loads(content))
        except MemoryError:
            raise
        except Exception:  # whatever another build of the same version makes of it
            disk_cache.discard(file)
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Keep the code for a signature, where it can be."""
        from numba.core.serialize import dumps

        lifted = any(not loop.can_cache for loop in code.lifted)
        kept = self.folder is not None and not lifted and not code.library.has_dynamic_globals
        if kept and not disk_cache.write(self._file(signature, code.codegen), dumps(code._reduce())):
            self.folder = None
        self._end_turn()

    def _take_turn(self, file: Path) -> bool:
        """Wait until no other process makes this code; return whether it is worth looking for it again."""
        try:
            import fcntl

            self.turn = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (ImportError, OSError):  # each process compiles for itself
            return False
        waited = False
        for _ in range(round(PATIENCE_S / POLL_S)):
            try:
                fcntl.flock(self.turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                time.sleep(POLL_S)
            except OSError:  # a file system without locks
                return waited
            else:
                return waited
        return waited

    def _end_turn(self) -> None:
        if self.turn is not None:
            os.close(self.turn)
        self.turn = None

    def flush(self) -> None:
        """Do nothing: what is kept stays right."""

    def _file(self, signature: Any, codegen: Any) -> Path:
        key = repr((self.source, str(signature), codegen.magic_tuple()))
        assert self.folder is not None
        return self.folder / f"{self.name}-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.code"


def _folder(files: set[str]) -> Path | None:
    """Return the folder for code made of these modules as they are; remove those not used for longest."""
    text = b"".join(Path(x).read_bytes() for x in sorted(files))
    given = os.environ.get("NUMBA_CACHE_DIR")
    digest = hashlib.blake2b(text, digest_size=8).hexdigest()
    folder = disk_cache.folder("code", digest, base=Path(given) if given else None)
    if folder is None:
        return None
    with contextlib.suppress(OSError):
        folder.touch()
        others = sorted(folder.parent.iterdir(), key=lambda x: x.stat().st_mtime)
        for old in others[:-MOST_FOLDERS]:
            shutil.rmtree(old, ignore_errors=True)
    return folder
