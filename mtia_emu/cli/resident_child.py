"""Behind `resident`: runs commands of ours one by one, `python -P -m mtia_emu.cli.resident_child PARENT`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import IO

from ..processes import die_with
from .app import main
from .resident import NAME


def serve(asked: IO[bytes], told: IO[bytes]) -> None:
    """Run commands as they are asked for, until there are no more; tell the exit code of each."""
    for line in asked:
        words, path = json.loads(line)
        with open(path, "wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        code = _run(words)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        told.write(b"%d\n" % code)
        told.flush()


def _run(words: list[str]) -> int:
    """Return the exit code that a command has as a program of its own."""
    try:
        main.main(args=words, prog_name=NAME)
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # as Python does with what nobody catches
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    asked_, told_ = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(asked_, told_)
