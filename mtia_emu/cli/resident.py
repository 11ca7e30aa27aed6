"""A process that runs commands of ours one after another (`serve`), as the one that asks sees it.

Started once, it has imported what they need. A command that takes it along, by a signal or an exit of its
own, ends it; who asked starts another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from select import select

from ..processes import environment, python

NAME = "mtia-emu"
MOST_SERVED = 500  # commands of one process: what they leave behind does not add up without end


class Resident:
    """The process, seen from the one that asks; started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.served = 0

    def run(self, words: list[str], out: Path, seconds: float) -> int | None:
        """Return the exit code of `mtia-emu WORDS`, None where it took too long; its output goes to `out`."""
        if self.process is None or self.served >= MOST_SERVED:
            self._start()
        assert self.process is not None and self.process.stdin and self.process.stdout
        self.served += 1
        self.process.stdin.write(json.dumps([words, str(out)]).encode() + b"\n")
        self.process.stdin.flush()
        if not select([self.process.stdout], [], [], seconds)[0]:
            self.close()
            return None
        line = self.process.stdout.readline()
        if line:
            return int(line)
        code = self.process.wait()
        self.close()
        return code

    def _start(self) -> None:
        self.close()
        words = python("mtia_emu.cli.resident_child", str(os.getpid()))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )

    def close(self) -> None:
        """End the process, where there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for end in (self.process.stdin, self.process.stdout):
                if end is not None:
                    end.close()
        self.process, self.served = None, 0


def is_ours(command: str) -> bool:
    """Return whether a command is the `mtia-emu` of the Python that this one runs in."""
    path = shutil.which(command)
    return path is not None and Path(path).absolute() == Path(sys.executable).absolute().with_name(NAME)
