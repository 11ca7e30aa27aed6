"""`mtia-emu completion`: commands, options and names completed in the user's shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from ..errors import UserError
from .output import say

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "mtia-emu", "_MTIA_EMU_COMPLETE"
MARK = "# completion of mtia-emu"
ZSH_FIRST = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"


@click.command("completion", short_help="Complete commands, options and names in your shell.")
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.option("--install", is_flag=True, help="Write the script where the shell finds it, for good.")
def completion(shell: str | None, install: bool) -> None:
    """Print the script with which SHELL completes our commands, or install it; without SHELL that of $SHELL.

    Installed, it is a file in the user's data folder, and one line in ~/.bashrc or ~/.zshrc that reads it;
    fish finds it by itself. Chips, GPUs, systems, built-in models and keys of --set are completed too.

    \b
    Examples:
      mtia-emu completion --install
      mtia-emu completion zsh --install
      mtia-emu completion bash
    """
    chosen = shell or own_shell()
    text = script(chosen, click.get_current_context().find_root().command)
    if not install:
        say(text, nl=False)
        return
    for line in installed(chosen, text):
        say(line)


def own_shell() -> str:
    """Return the shell that the user works in, by $SHELL. Raises `UserError` for one without completion."""
    path = os.environ.get("SHELL", "")
    name = Path(path).name
    if name not in SHELLS:
        raise UserError(
            f"SHELL is {path!r}: no completion for it (right: mtia-emu completion {'|'.join(SHELLS)})"
        )
    return name


def script(shell: str, program: click.Command) -> str:
    """Return the script that a shell reads to complete the words of a program."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    made = kind(program, {}, PROGRAM, VARIABLE)
    text = made.source_template % made.source_vars()
    return (ZSH_FIRST if shell == "zsh" else "") + text.strip() + "\n"


def installed(shell: str, text: str) -> list[str]:
    """Write the script, and the line that reads it, where that is not there yet; return what was done."""
    from ..files.writing import write_atomic

    if shell == "fish":
        target = _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / f"{PROGRAM}.fish"
    else:
        target = _folder("XDG_DATA_HOME", ".local/share") / PROGRAM / f"completion.{shell}"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text.encode())
    done = [f"wrote {target}"]
    if shell != "fish":
        start = (Path(os.environ.get("ZDOTDIR") or _home()) if shell == "zsh" else _home()) / f".{shell}rc"
        name = shlex.quote(str(target))
        line = f"[ -f {name} ] && . {name}  {MARK}"
        known = start.read_text(encoding="utf-8", errors="replace") if start.is_file() else ""
        if line in known.splitlines():
            done.append(f"{start} reads it already")
        else:
            with start.open("a", encoding="utf-8") as file:  # not anew: it may be a link to somewhere else
                file.write(f"{'' if known.endswith(chr(10)) or not known else chr(10)}{line}\n")
            done.append(f"added a line to {start} that reads it")
    return [*done, f"it works in a new {shell}, or now after: exec {shell}"]


def _folder(variable: str, usual: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if os.path.isabs(given) else _home() / usual


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise UserError("no home folder is known (right: set HOME)") from None
