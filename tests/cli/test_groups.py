"""The front door: commands by who uses them, and what is said to whoever asks nothing."""

from __future__ import annotations

import re
import shlex
from collections import Counter

import click
from click.testing import CliRunner

from mtia_emu.cli.app import main
from mtia_emu.cli.groups import GREETING, GROUPS, OTHERS, grouped


def test_every_command_is_in_one_group() -> None:
    placed = Counter(name for names in GROUPS.values() for name in names)
    assert set(placed) == set(main.commands) and set(placed.values()) == {1}


def test_help_lists_the_groups_in_order_and_each_command_once() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    places = [text.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places) and OTHERS not in text
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", text, re.M)
    assert sorted(listed) == sorted(main.commands)


def test_what_is_in_no_group_is_listed_last() -> None:
    assert grouped(["run", "new"]) == {"A model on a chip": ["run"], OTHERS: ["new"]}


def test_alone_the_program_greets_with_commands_that_there_are() -> None:
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0 and done.output == GREETING
    commands = re.findall(r"^  mtia-emu (.*)$", GREETING, re.M)
    assert [text.split()[0] for text in commands] == ["run", "explain", "sweep"]
    for text in commands:
        name, *words = shlex.split(text)
        with click.Context(main) as above:
            main.commands[name].make_context(name, words, parent=above)  # each word is one that is known
