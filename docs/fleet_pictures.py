"""Pictures of the fleets' tutorial: figures of the page that `mtia-emu fleet -o` writes, each as a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree as ET

from mtia_emu.fleet import charts
from mtia_emu.fleet.answer import fleet
from mtia_emu.fleet.page import programme_of
from mtia_emu.view.html.elements import el
from mtia_emu.view.html.frame import WIDE, Chart

SCENARIO = Path(__file__).resolve().parents[1] / "examples" / "fleet-mtia-2i.toml"
COLOURS = re.compile(r":root \{.*?\}", re.DOTALL)  # the first: light ones
OF_DRAWINGS = re.compile(r"^svg .*$", re.MULTILINE)


def pictures_into(folder: Path) -> list[Path]:
    """Draw the figures of the recommendation example's page into a folder; return their paths."""
    drawn = []
    for name, chart in figures():
        path = folder / f"fleet-{name}.svg"
        path.write_text(alone(chart), encoding="utf-8")
        drawn.append(path)
    return drawn


def figures() -> Iterator[tuple[str, Chart]]:
    """Yield the figures by name."""
    answer = fleet(SCENARIO)
    found, by_hour = programme_of(answer), answer.option(answer.about).hourly
    assert found is not None and by_hour is not None
    yield "power", charts.power(answer)
    yield "tornado", charts.tornado(answer, found)
    yield "odds", charts.odds(found)
    yield "carbon", charts.carbon(by_hour)


def alone(chart: Chart) -> str:
    """Return a figure as a file of its own, in the page's light colours on white."""
    sheet = (resources.files("mtia_emu.view.html") / "style.css").read_text(encoding="utf-8")
    light = COLOURS.search(sheet)
    assert light is not None
    drawing = chart.draw(WIDE)
    rules = "\n".join([light[0].replace("light dark", "light"), "svg { font-family: sans-serif; }",
                       *OF_DRAWINGS.findall(sheet)])  # fmt: skip
    *_, wide, high = drawing.attrib["viewBox"].split()
    style = ET.Element("style")
    style.text = f"\n{rules}\n"
    drawing.set("xmlns", "http://www.w3.org/2000/svg")
    drawing.insert(0, el("rect", width=wide, height=high, fill="#ffffff"))
    drawing.insert(0, style)
    return ET.tostring(drawing, encoding="unicode") + "\n"
