"""Every key of a scenario: what it means, between which bounds it is believed, what ships for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from markdown_table import table
from pydantic import BaseModel

from mtia_emu.fleet.load import KINDS, TABLES
from mtia_emu.fleet.own_chip import silicon_of
from mtia_emu.fleet.scenario import DeviceFacts, FleetWork, WorkOnDevice
from mtia_emu.fleet.shipped import inputs

SILICON = set(silicon_of("mtia-2i"))  # keys that a chip's file answers
MODELS: dict[str, type[BaseModel]] = {
    **TABLES,
    "device.NAME": DeviceFacts,
    **{f'device.NAME, kind "{kind}"': model for kind, model in KINDS.items()},
    "work.NAME": FleetWork,
    "work.NAME.on.DEVICE": WorkOnDevice,
}


def scenario_keys() -> str:
    """Return the keys with a unit, table by table."""
    parts = []
    for name, model in MODELS.items():
        rows = [[f"`{key}`", *facts] for key, *facts in _keys(name, model)]
        parts.append(f"`{name}`\n\n{table(['key', 'what', 'from', 'to', 'shipped'], rows)}")
    return "\n\n".join(parts)


def _keys(name: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str, str, str]]:
    for key, field in model.model_fields.items():
        extra = field.json_schema_extra
        common = name.startswith("device.NAME,") and key in DeviceFacts.model_fields
        if isinstance(extra, dict) and "least" in extra and not common:
            optional = " (may be left out)" if field.default is None else ""
            least, most = extra["least"], extra["most"]
            what = f"{field.description}{optional}"
            yield key, what, _bound(least), _bound(most), _shipped(name, key)


def _shipped(name: str, key: str) -> str:
    """Return what ships for a key: a number with its band, or the devices that there is one for."""
    known, first = inputs(), name.partition(".")[0]
    if first != "device":
        return _number(known.get(f"{first}.{key}")) if name in TABLES or name == "work.NAME" else ""
    if key in SILICON:
        return "by `chip`"
    alone = "".join(_number(known.get(f"{kind}.{key}")) for kind in KINDS)
    devices = [k.split(".")[1] for k in known if k.startswith("device.") and k.endswith(f".{key}")]
    return "; ".join(part for part in (alone, ", ".join(f"`{x}`" for x in sorted(devices))) if part)


def _bound(value: float) -> str:
    return f"{value:,.0f}" if 1e3 <= value < 1e9 else f"{value:g}"


def _number(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    band = f" ({found['low']:g} to {found['high']:g})" if "low" in found else ""
    return f"{found['value']:g}{band}, {found['status']}"


SECTIONS: dict[str, Callable[[], str]] = {"scenario-keys": scenario_keys}
