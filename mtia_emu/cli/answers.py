"""Answers of commands, kept on disk: who asks the same again is answered before anything heavy is imported.

A command that only times, prices or lists says the same whenever all that it reads is the same: its words,
the flags of the environment, the files that it names, the product's own files and the packages below it.
The answer is kept under a digest of all of these. Commands that execute a model, write a file or run code of
the user's are done anew each time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from .. import settings
from ..files import disk_cache

NOTHING: frozenset[str] = frozenset()
RUNS = frozenset(
    {
        *("--annotations", "--check", "--html", "--inputs", "--kernel"),
        *("--outputs", "--passes", "--roofline", "--trace"),
    }
)
DONE_ANEW = {  # commands whose answers are kept: with which options they execute, write or run code
    "area": RUNS,
    "chips": NOTHING,
    "collective": NOTHING,
    "diff": NOTHING,
    "explain": RUNS,
    "fleet": frozenset({"-o", "--output"}),
    "gemm": RUNS,
    "gpus": NOTHING,
    "plan": NOTHING,
    "rank": NOTHING,
    "run": RUNS,
    "serve": frozenset({"-o", "--output", "--trace-out", "--scheduler"}),
    "shard": NOTHING,
    "steps": frozenset({"-o", "--output", "--check"}),
    "systems": NOTHING,
    "tbe": RUNS,
    "train": frozenset({"--steps", "--data", "--check", "--emit", "--html"}),
    "zoo": NOTHING,
}
BELOW = ("numpy", "numba", "networkx", "onnx", "pydantic", "ml_dtypes", "rich", "click", "scipy")
OF_A_TERMINAL = (
    "COLORTERM",
    "COLUMNS",
    "FORCE_COLOR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LINES",
    "NO_COLOR",
    "TERM",
)
SOURCES = (".py", ".toml", ".csv", ".json")
MOST, MOST_BYTES = 256, 1 << 22  # answers, and bytes of one
MOST_NEIGHBOURS = 4096  # files beside one that is named
WHOLE_BYTES = 1 << 20  # files up to this size count by what they hold, larger ones by size and time
FOLDER = "answers"


@dataclass
class Answer:
    """What a command prints, piece by piece: on standard output, and the notes on standard error.

    While nothing is `kept`, pieces are not noted.
    """

    kept: bool = False
    out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str, *, err: bool) -> None:
        """Note what was printed."""
        if self.kept:
            (self.notes if err else self.out).append(text)


PRINTED = Answer()  # by this process's command


def listen() -> None:
    """Note from now on all that is printed on standard output, whoever prints it."""
    PRINTED.kept = True
    sys.stdout = cast(TextIO, _Noted(sys.stdout))


class _Noted:
    """A stream that notes what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        count = self._stream.write(text)
        PRINTED.note(text, err=False)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def question(words: Sequence[str]) -> str | None:
    """Return the digest of all that the answer to a command depends on; None where none is kept."""
    if not settings.ANSWERS.on() or not words or words[0] not in DONE_ANEW or _is_done_anew(words):
        return None
    if None in (sys.stdin, sys.stdout, sys.stderr):  # whoever started us has closed it
        return None
    digest = hashlib.blake2b(digest_size=32)
    try:
        for part in (*_parts(words), *_named(words), *_product()):
            digest.update(f"{len(part)} ".encode())
            digest.update(part)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def find(key: str) -> Answer | None:
    """Return the answer that is kept under a digest, None where there is none."""
    file = _file(key)
    data = disk_cache.read(file, MOST_BYTES) if file is not None else None
    if data is None or file is None:
        return None
    try:
        value = json.loads(data)
        answer = Answer(True, [str(value["out"])], [str(value["notes"])])
    except (ValueError, KeyError, TypeError):
        disk_cache.discard(file)
        return None
    os.utime(file)  # what is asked for stays
    return answer


def keep(key: str, answer: Answer) -> None:
    """Keep an answer, if it is not too long; the oldest go."""
    data = json.dumps({"out": "".join(answer.out), "notes": "".join(answer.notes)}).encode()
    file = _file(key)
    if file is not None and len(data) <= MOST_BYTES and disk_cache.write(file, data):
        disk_cache.trim(file.parent, MOST)


def _file(key: str) -> Path | None:
    place = disk_cache.folder(FOLDER)
    return None if place is None else place / f"{key}.json"


def _is_done_anew(words: Sequence[str]) -> bool:
    """Return whether a command executes, writes or runs code of the user's, by its options."""
    options = {word.partition("=")[0] if word.startswith("--") else word[:2] for word in words}
    writes = any(value not in ("", "-") for value in _values(words, "--json"))
    anew = options & DONE_ANEW[words[0]]
    return "new" in words[:2] or bool(anew) or writes or any(".py" in word for word in words)


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    """Yield what is given to an option, behind it or behind a sign of equality."""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        name, sign, value = word.partition("=")
        if name == option:
            yield value if sign else after


def _parts(words: Sequence[str]) -> Iterator[bytes]:
    """Yield the words, the flags of the environment and what standard output can show."""
    yield from (os.fsencode(word) for word in (sys.version, *words))
    ours = (name for name in os.environ if name.startswith(("MTIA_EMU_", "NUMBA_", "PYTHON")))
    for name in sorted({*ours, *OF_A_TERMINAL}):
        yield os.fsencode(f"{name}={os.environ.get(name)}")
    size = shutil.get_terminal_size() if sys.stdout.isatty() else ()
    yield os.fsencode(f"{sys.stdout.isatty()} {sys.stdout.encoding} {size}")


def _named(words: Sequence[str]) -> Iterator[bytes]:
    """Yield what is known of the files that the words name, and of those beside them, which they may name.

    Raises `ValueError` where that is not to be known: for folders, and for files that name others elsewhere.
    """
    for word in words:
        for path in map(Path, _pieces(word)):
            if path.is_dir():
                raise ValueError(f"{path} is a folder")
            if path.is_file():
                yield from _with_neighbours(path.resolve())


def _pieces(word: str) -> Iterator[str]:
    """Yield what in a word may be a file: as in --set=dram.device=FILE, --over=trace=FILE,FILE or FILE*3."""
    ends = (word[match.end() :] for match in re.finditer(r"^|[=:,]", word))
    yield from filter(None, dict.fromkeys((*ends, *re.split(r"[=:,*\"']", word))))


def _with_neighbours(path: Path) -> Iterator[bytes]:
    yield _identity(os.fspath(path), path.stat())
    if path.stat().st_size <= WHOLE_BYTES:
        data = path.read_bytes()
        if path.suffix == ".toml" and _names_files(data.decode(errors="replace"), path.parent):
            raise ValueError(f"{path} names other files")
        yield data
    yield from _listing(path.parent)


def _names_files(text: str, folder: Path) -> bool:
    """Return whether a TOML text names files or folders, from its own folder or from the current one."""
    pieces = {piece for line in re.split(r"[\"'\n]", text) for piece in _pieces(line)}
    here = any(os.path.exists(base / piece) for piece in pieces for base in (folder, Path()))
    return here or ".toml" in text or ".csv" in text


def _listing(folder: Path, suffixes: tuple[str, ...] = ()) -> Iterator[bytes]:
    """Yield names, sizes and times of the files in a folder and below, of all or of those with a suffix."""
    rows, folders = [], [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders += [entry.path] if entry.name != "__pycache__" else []
                elif not suffixes or entry.name.endswith(suffixes):
                    rows.append(_identity(entry.path, entry.stat()))
                if len(rows) + len(folders) > MOST_NEIGHBOURS:
                    raise ValueError(f"{folder} holds more than {MOST_NEIGHBOURS} files")
    yield from sorted(rows)


def _identity(path: str, status: os.stat_result) -> bytes:
    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return os.fsencode(f"{path} {times}")


def _product() -> Iterator[bytes]:
    """Yield what is known of the product's own files, and of the packages below it."""
    for package in ("mtia_emu", "mtia_emu.compiler", "mtia_emu.kernels"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield from _listing(Path(place), SOURCES)
    for package in BELOW:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            yield _identity(spec.origin, os.stat(spec.origin))
