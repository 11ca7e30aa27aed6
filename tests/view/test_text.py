"""Names from outside do nothing to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mtia_emu.view.text import LIMIT, clean, shorten


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain/name.0", "plain/name.0"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("two\nlines\r\tand", "two lines  and"),
        ("\x00\x07\x08bell", "bell"),
        ("\u202egnp.exe", "gnp.exe"),
        ("zero\u200bwidth", "zerowidth"),
        ("lone\ud800half", "lonehalf"),
        ("unfinished\x1b[", "unfinished"),
        ("unfinished\x1b]0;x", "unfinished0;x"),
        ("\u2028line", " line"),
        ("模型", "模型"),
        ("[red]markup[/red] :smile:", "[red]markup[/red] :smile:"),
    ],
)
def test_clean(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


@given(st.text(alphabet=st.characters(), max_size=60))
def test_clean_text_is_printable(text: str) -> None:
    shown = clean(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert clean(text, ascii_only=True).isascii()
    shown.encode()


def test_long_names_end() -> None:
    assert len(clean("x" * 10_000_000)) == LIMIT + 3


def test_shorten_keeps_both_ends() -> None:
    assert shorten("/model/layers.0/self_attn/q_proj/MatMul", 20) == "/model/l...oj/MatMul"
    assert shorten("short", 20) == "short"
    assert shorten("anything", 2) == ".."
    assert shorten("anything", 0) == ""


@given(st.text(max_size=60), st.integers(0, 40))
def test_shorten_fits(text: str, width: int) -> None:
    assert cell_len(shorten(text, width)) <= max(width, 0)
