"""Help is complete: commands say what they do, options what they mean, and `--help` prints all of it."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mtia_emu.cli.app import main


def squeezed(text: str) -> str:
    """Return a text without spaces and line breaks: help is wrapped."""
    return "".join(text.split())


@pytest.mark.parametrize("name", main.commands)
def test_help_prints_every_option_with_its_meaning(name: str) -> None:
    command = main.commands[name]
    shown = squeezed(CliRunner().invoke(main, [name, "--help"]).stdout)
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert not option.hidden, option.name
        assert option.help and len(option.help.split()) > 1, f"{name} {option.opts[0]} says too little"
        assert squeezed(option.help) in shown
        assert all(spelling in shown for spelling in (*option.opts, *option.secondary_opts))


@pytest.mark.parametrize("name", main.commands)
def test_help_says_what_the_command_does_with_each_argument(name: str) -> None:
    command = main.commands[name]
    assert command.help and command.short_help and command.short_help.endswith(".")
    for argument in (p for p in command.params if isinstance(p, click.Argument)):
        spelling = argument.human_readable_name.strip("[]")
        assert spelling.lower() in command.help.lower(), f"{name} is silent on {spelling}"
