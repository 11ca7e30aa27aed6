"""Histograms of lengths from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.length_files import parse_lengths, read_lengths

TWO = "model,tokens_from,weight\na,1,1\na,4,3\nb,7,1\n"


def test_a_number_is_a_length() -> None:
    assert parse_lengths("512").tokens.tolist() == [512]


def test_bins_are_drawn_evenly_and_by_weight(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text(TWO)
    lengths = parse_lengths(f"{tmp_path / 'h.csv'}:model=a")
    drawn = lengths.draw(np.random.default_rng(1), 4000)
    assert set(drawn.tolist()) == {1, 2, 3, 4} and (drawn == 4).mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("text", "of", "error"),
    [
        (TWO, {}, "holds 2 histograms"),
        (TWO, {"model": "c"}, "no lengths of"),
        (TWO, {"modell": "a"}, "no column 'modell'; did you mean 'model'"),
        ("tokens_from,weight\n", {}, "no lengths"),
        ("tokens_from,weight\n1,0\n", {}, "no lengths"),
        ("tokens_from,weight\n0,1\n", {}, "tokens_from is '0'"),
        ("tokens_from,weight\n1,nan\n", {}, "weight is 'nan'"),
        ("tokens_from,weight\n1,-1\n", {}, "weight is '-1'"),
        ("tokens_from,weight\n4,1\n2,1\n", {}, "does not rise"),
        ("tokens,weight\n4,1\n", {}, "no column 'tokens_from' .it has: tokens, weight"),
    ],
)
def test_what_is_no_histogram_is_refused(tmp_path: Path, text: str, of: dict[str, str], error: str) -> None:
    (tmp_path / "h.csv").write_text(text)
    with pytest.raises(UserError, match=error):
        read_lengths(tmp_path / "h.csv", of)


@pytest.mark.parametrize("text", ["0", "none.csv", "-5", "1e3", "99999999999"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_lengths(text)
