"""Fenced blocks of the pages: run them, and put the real output where a page shows one.

The word behind the fence says what a block is:

- `python` runs, all such blocks of a page in one namespace. A `text output` block behind it shows what it
  printed.
- `console` runs each line that begins with `$ `; the lines below are what the command printed. It must exit
  with 0, or with N where the line ends in `# exits N`. A line `...` stands for lines that are left out.
- `toml NAME` and `python NAME` are written to the file NAME.
- Anything else is shown, not run.

A page runs from top to bottom in one folder, with the examples in it: `python docs/fences.py PAGE FOLDER`
prints it with its outputs as they are now.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hollow import check

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"(?P<head><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL)
EXITS = re.compile(r"\s+# exits (\d+)$")
ORACLE = re.compile(
    r"relative error|\bok$"
)  # lines whose numbers depend on the library that is compared with
LEFT_OUT = "..."
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Stale(Exception):
    """A block that fails, or whose output cannot be found in the real one."""


def fill(page: str, sections: dict[str, Callable[[], str]]) -> str:
    """Return the page with the named generated sections made anew; others stay as they are.

    Raises `ValueError` for a row in which every figure is zero or empty (`hollow.py`).
    """

    def one(match: re.Match[str]) -> str:
        make = sections.get(match["name"])
        if make is None:
            return match[0]
        return f"{match['head']}\n{check(match['name'], make().strip())}\n\n{match['tail']}"

    return SECTION.sub(one, page)


def section_names(page: str) -> list[str]:
    """Return the names of a page's generated sections."""
    return [match["name"] for match in SECTION.finditer(page)]


def runs(page: str) -> bool:
    """Return whether a page has a block that is run."""
    return any(m["info"].split(" ")[0] in ("python", "console") for m in FENCE.finditer(page))


def run_page(page: str, folder: Path) -> str:
    """Run the blocks of a page in a folder; return the page with its outputs as they are now.

    Raises `Stale` for a block that fails, and for shown output that the real one has no line like.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = [""]
    if "examples/" in page and not (folder / EXAMPLES.name).exists():
        shutil.copytree(EXAMPLES, folder / EXAMPLES.name)

    def one(match: re.Match[str]) -> str:
        info, body = match["info"], match["body"]
        kind, _, name = info.partition(" ")
        if kind in ("toml", "python") and name:
            (folder / name).write_text(body, encoding="utf-8")
        elif kind == "python":
            printed[0] = _python(body, namespace, page[: match.start()].count("\n") + 1)
        elif kind == "console":
            body = _console(body, folder)
        elif info == "text output":
            body = refresh(body or printed[0], printed[0])
        return f"```{info}\n{body}```"

    with contextlib.chdir(folder):
        return FENCE.sub(one, page)


def _python(body: str, namespace: dict[str, Any], line: int) -> str:
    """Run a block and return what it prints; a traceback shows the page's own line numbers."""
    out = io.StringIO()
    code = compile("\n" * line + body, "<page>", "exec", dont_inherit=True)
    with contextlib.redirect_stdout(out):
        exec(code, namespace)
    return out.getvalue()


def _console(body: str, folder: Path) -> str:
    """Run the commands of a block; return it with what they print."""
    out: list[str] = []
    for command, shown in _commands(body):
        real = _shell(command, folder)
        out += [f"$ {command}", *refresh(shown, real).splitlines()]
    return "\n".join(out) + "\n"


def _commands(body: str) -> list[tuple[str, str]]:
    """Return each command of a console block with the output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
        else:
            raise Stale(f"a console block begins with a command, not with {line!r}")
    return [(command, "\n".join(lines)) for command, lines in found]


def _shell(command: str, folder: Path) -> str:
    expected = EXITS.search(command)
    wanted = int(expected[1]) if expected else 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = os.environ | {"PATH": path, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {EXITS.sub('', command)}"],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,  # a safety net
        check=False,
    )
    if done.returncode != wanted:
        raise Stale(f"`{command}` exits {done.returncode}, not {wanted}:\n{done.stdout}")
    return done.stdout


def refresh(shown: str, real: str) -> str:
    """Return the real output, cut as the shown one is.

    Lines between two `...` begin where the real output has a line like the first of them.
    """
    lines = [line.rstrip() for line in real.rstrip("\n").splitlines()]
    if not shown.strip():
        return ""
    if LEFT_OUT not in shown.splitlines():
        return "\n".join(lines) + "\n"
    out: list[str] = []
    at = 0
    for line_run in _runs(shown.splitlines()):
        if line_run == [LEFT_OUT]:
            out.append(LEFT_OUT)
            continue
        at = _find(line_run[0], lines, at)
        out += lines[at : at + len(line_run)]
        at += len(line_run)
    return "\n".join(out) + "\n"


def _runs(lines: list[str]) -> list[list[str]]:
    """Return the lines in runs, each `...` a run of its own."""
    runs_: list[list[str]] = [[]]
    for line in lines:
        if line == LEFT_OUT:
            runs_ += [[LEFT_OUT], []]
        else:
            runs_[-1].append(line)
    return [r for r in runs_ if r]


def _find(line: str, lines: list[str], start: int) -> int:
    for index in range(start, len(lines)):
        if _masked(lines[index]) == _masked(line):
            return index
    raise Stale(f"the output has no line like {line!r}:\n" + "\n".join(lines))


def _masked(line: str) -> str:
    """Return a line without its numbers, bars and spacing."""
    words = re.sub(r"[\d.,]+(e-?\d+)?|[█▏▎▍▌▋▊▉]", "", line).split()
    return " ".join(words)


def same(shown: str, real: str) -> bool:
    """Return whether two pages are equal but for spacing and for numbers that other libraries decide."""
    a, b = shown.splitlines(), real.splitlines()
    return len(a) == len(b) and all(_same_line(x, y) for x, y in zip(a, b, strict=True))


def _same_line(a: str, b: str) -> bool:
    if ORACLE.search(a) and ORACLE.search(b):
        return _masked(a) == _masked(b)
    return a.split() == b.split()


if __name__ == "__main__":
    page_file, work = Path(sys.argv[1]), Path(sys.argv[2])
    result = run_page(page_file.read_text(encoding="utf-8"), work.resolve())
    sys.stdout.buffer.write(result.encode())
