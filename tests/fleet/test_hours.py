"""Grids by the hour: what they give, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.hours import grid_years, load_hours

HEAD = "hour_utc,wnd_mw,sun_mw,wat_mw,oil_mw,ng_mw,col_mw,nuc_mw,oth_mw\n"


def written(folder: Path, rows: list[str], head: str = HEAD) -> str:
    file = folder / "grid.csv"
    file.write_text(head + "\n".join(rows) + "\n")
    return str(file)


YEAR = [f"{hour},10,0,0,0,30,0,0,0" for hour in range(8760)]


def test_texas_emits_what_is_published() -> None:
    """353.1 g/kWh by life-cycle factors, weighted by energy; eGRID's 334 counts direct emissions alone."""
    grid = load_hours("ERCO")
    assert len(grid.empty) == 0 and grid.mean_kg_per_kwh == pytest.approx(0.35305, abs=5e-5)
    assert grid_years() == {"ERCO": 2022, "MISO": 2022} and grid.year == 2022


def test_hours_without_data_are_refused_or_the_mean_of_others() -> None:
    with pytest.raises(UserError, match="3 hours have no data, hour 3766 the first"):
        _ = load_hours("MISO").kg_per_kwh
    grid = load_hours("MISO", "mean")
    others = np.delete(grid.kg_per_kwh, grid.empty)
    assert grid.kg_per_kwh[grid.empty] == pytest.approx([others.mean()] * 3) and others.min() > 0.1


def test_a_users_grid_is_read(tmp_path: Path) -> None:
    grid = load_hours(written(tmp_path, YEAR))
    assert grid.kg_per_kwh == pytest.approx((10 * 0.011 + 30 * 0.490) / 40) and grid.year is None
    with pytest.raises(UserError, match="makes nothing from sun"):
        grid.profile("sun")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (YEAR[:100] + YEAR[101:], "hour 100 is missing (row 102 is hour '101')"),
        (YEAR[:-1], "has 8759 hours: a year has 8760 or 8784"),
        (["0,-1,0,0,0,0,0,0,0", *YEAR[1:]], "hour 0 has '-1'"),
        (["0,nan,0,0,0,0,0,0,0", *YEAR[1:]], "hour 0 has 'nan'"),
        (["0,1", *YEAR[1:]], "hour 0 has None"),
    ],
    ids=["missing", "short", "negative", "nan", "cut"],
)
def test_what_is_no_year_is_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_hours(written(tmp_path, rows))
    assert words in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column hour_utc, ng_mw"):
        load_hours(written(tmp_path, ["1"], "wnd_mw,sun_mw,wat_mw,oil_mw,col_mw,nuc_mw,oth_mw\n"))
    with pytest.raises(UserError, match="neither one of ERCO, MISO nor a file"):
        load_hours("nowhere")
