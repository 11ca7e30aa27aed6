"""From a TOML file to a checked `Scenario`: shipped inputs filled in, units believed, one year's dollars."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import UserError, nearest
from ..files import toml
from ..view.text import shorten
from .own_chip import silicon_of
from .quantity import Quantity
from .reports import reported
from .scenario import (
    BoughtDevice,
    DeviceCount,
    Finance,
    FleetWork,
    OwnDevice,
    PlanFacts,
    ProgrammeFacts,
    Purchases,
    RackFacts,
    Scenario,
    SiteFacts,
    WorkOnDevice,
)  # fmt: skip
from .shipped import grid, inflation, inputs

TABLES: dict[str, type[BaseModel]] = {
    "finance": Finance,
    "site": SiteFacts,
    "rack": RackFacts,
    "purchases": Purchases,
    "programme": ProgrammeFacts,
    "plan": PlanFacts,
}
MOST_SHOWN = 60  # letters of a value that is refused
OPTIONAL = ("purchases", "programme", "plan")
KINDS: dict[str, type[BaseModel]] = {"bought": BoughtDevice, "own": OwnDevice}
OF_THE_OTHER = {  # what a device of one kind must not say, and why
    "bought": (
        "die_mm2 wafer_usd partner_margin nre_usd mask_usd",
        "a bought device costs its price, not what it costs to make",
    ),
    "own": (
        "price_usd",
        "an own device costs what it costs to make, its partner's margin and its design, not a price",
    ),
}


def load_scenario(path: str | Path, settings: Mapping[str, Any] | None = None) -> Scenario:
    """Return the scenario of a TOML file, `settings` (dotted key to a number or a table) put over it.

    Raises `UserError` for what is no scenario, naming each fault: a missing source, low above high, a unit in
    the wrong key, an unknown name.
    """
    file = Path(path)
    text = toml.file_text(file, "scenario", ["a .toml file; see examples/"])
    return make_scenario(toml.parse(text, f"scenario {file}"), settings or {}, file)


def make_scenario(values: Mapping[str, Any], settings: Mapping[str, Any], file: Path) -> Scenario:
    """Return the scenario that nested values describe; raise `UserError` naming each fault.

    `file` is what they are from; reports that they name lie beside it.
    """
    where = f"scenario {file}"
    tables = copy.deepcopy(dict(values))
    for key, value in settings.items():
        _put(tables, key, value, where)
    filled = _filled(tables, where, file.parent)
    faults = list(_ill_formed(filled))
    if faults:
        raise UserError(f"{where}: " + "; ".join(faults))
    try:
        scenario = Scenario.model_validate(toml.tuples(filled))
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_fault(e) for e in error.errors())) from None
    faults = [*_unbelievable(scenario), *_unknown_names(scenario), *_uneven(scenario)]
    if faults:
        raise UserError(f"{where}: " + "; ".join(faults))
    return _one_year(scenario)


def _put(tables: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key; a bare number becomes a chosen one without a band."""
    *path, last = key.split(".")
    table: Any = tables
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"{where}: --set {key}: '{part}' is a value, not a table of keys")
    plain = isinstance(value, int | float) and not isinstance(value, bool) and _is_quantity(key)
    table[last] = {"value": value, "source": "set by hand", "status": "chosen"} if plain else value


def _filled(tables: dict[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """Put shipped inputs where the scenario says nothing."""
    known = inputs()
    for name, model in TABLES.items():
        if name in OPTIONAL and name not in tables:
            continue
        table = tables.setdefault(name, {})
        if name == "site" and isinstance(table, dict) and isinstance(table.get("egrid"), str):
            table.setdefault("grid_kg_per_kwh", grid(table["egrid"]))
        _fill(table, model, known, name)
    for name, table in _tables(tables, "device", where):
        model = KINDS.get(str(table.get("kind")), BoughtDevice)
        _fill(table, model, known, f"device.{name}")
        if table.get("kind") == "own" and isinstance(table.get("chip"), str):
            table.update({key: x for key, x in silicon_of(table["chip"]).items() if key not in table})
        _fill(table, model, known, str(table.get("kind")))
    for name, table in _tables(tables, "work", where):
        _fill(table, FleetWork, known, "work")
        for device, rates in table["on"].items() if isinstance(table.get("on"), dict) else ():
            if isinstance(rates, dict) and "report" in rates:
                found = reported(rates["report"], folder, f"{where}: work.{name}.on.{device}.report")
                rates.update({key: value for key, value in found.items() if key not in rates})
    return tables


def _tables(tables: Mapping[str, Any], name: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    group = tables.get(name, {})
    if not isinstance(group, dict) or not all(isinstance(x, dict) for x in group.values()):
        raise UserError(f"{where}: '{name}' is not a table of tables (right: [{name}.NAME])")
    return list(group.items())


def _fill(table: Any, model: type[BaseModel], known: Mapping[str, Any], prefix: str) -> None:
    if isinstance(table, dict):
        for key in model.model_fields:
            if f"{prefix}.{key}" in known:
                table.setdefault(key, dict(known[f"{prefix}.{key}"]))


def _ill_formed(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield faults that pydantic would say less plainly: bare numbers, and prices beside costs to make."""
    for key, value in _leaves(values, ""):
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_quantity(key):
            seen = shorten(str(value), MOST_SHOWN)
            yield (
                f"'{key}' is {seen}, without a source (right: {key.rpartition('.')[2]} = "
                f'{{ value = {seen}, source = "...", status = "quoted" }})'
            )
    for name, table in values["device"].items() if isinstance(values.get("device"), dict) else ():
        words, why = OF_THE_OTHER.get(str(table.get("kind")), ("", ""))
        yield from (f"'device.{name}.{word}' is not of a device of kind '{table['kind']}': {why}"
                    for word in words.split() if word in table)  # fmt: skip


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and "value" not in value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _model_of(key: str) -> tuple[type[BaseModel] | None, str]:
    """Return which table a dotted key is in, and the key's own name."""
    first, *rest = key.split(".")
    if first in TABLES and len(rest) == 1:
        return TABLES[first], rest[0]
    if first == "device" and len(rest) == 2:
        return (OwnDevice if rest[1] in OwnDevice.model_fields else BoughtDevice), rest[1]
    if first == "work" and len(rest) == 2:
        return FleetWork, rest[1]
    if first == "work" and len(rest) == 4 and rest[1] == "on":
        return WorkOnDevice, rest[3]
    if first == "plan" and len(rest) == 2 and rest[0] in ("supply_per_year", "installed"):
        return DeviceCount, "devices"
    return None, ""


def _is_quantity(key: str) -> bool:
    return "least" in _bounds(key)


def _bounds(key: str) -> dict[str, Any]:
    """Return between which bounds a quantity is believed; nothing for a key of anything else."""
    model, name = _model_of(key)
    field = model.model_fields.get(name) if model else None
    extra = field.json_schema_extra if field else None
    return extra if isinstance(extra, dict) else {}


def _fault(error: Any) -> str:
    path = [str(part) for part in error["loc"] if str(part) not in KINDS]
    key, name = ".".join(path), path[-1] if path else ""
    if error["type"] == "extra_forbidden":
        model, own = _model_of(key)
        known = [*model.model_fields] if model else [*Quantity.model_fields, *Scenario.model_fields]
        stem = own.rpartition("_")[0]
        near = nearest(own or name, known) or nearest(stem, known)
        return f"unknown key '{key}'{near}" + (" (the unit stands in the key)" if near and model else "")
    if error["type"] == "union_tag_not_found":
        return f'\'{key}\' has no kind (right: kind = "bought" or "own")'
    if error["type"] == "missing":
        table = ".".join(path[:-1])
        return f"'{table}' has no {name}" if table else f"{name} is missing"
    said = error["msg"].removeprefix("Value error, ").lower()
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        said = "not a table"
    seen = (
        "" if isinstance(error["input"], dict | tuple) else f" is {shorten(repr(error['input']), MOST_SHOWN)}"
    )
    return f"'{key}'{seen}: {said}"


def _unbelievable(scenario: Scenario) -> Iterator[str]:
    """Yield what lies outside of the bounds between which its unit is believed."""
    for key, quantity in scenario.quantities.items():
        bounds = _bounds(key)
        least, most = bounds["least"], bounds["most"]
        outside = [end for end in (quantity.value, *quantity.ends) if not least <= end <= most]
        if outside:
            right = f"right: from {least:g} to {most:g}"
            yield f"'{key}' is {outside[0]:g}: {right}; is it in the unit that the key names?"


def _unknown_names(scenario: Scenario) -> Iterator[str]:
    devices, works = scenario.device, scenario.work
    for name, work in works.items():
        for device in work.on:
            if device not in devices:
                yield f"'work.{name}.on.{device}': there is no such device{nearest(device, devices)}"
    for option, serves in scenario.option.items():
        for name, device in serves.items():
            if name not in works:
                yield f"'option.{option}.{name}': there is no such work{nearest(name, works)}"
            elif device not in works[name].on:
                right = f"right: [work.{name}.on.{device}]"
                yield f"'option.{option}.{name}' is '{device}': no rate of it is known ({right})"
        for name in works:
            if name not in serves:
                yield f"'option.{option}' does not say which device does '{name}'"
    if scenario.baseline not in scenario.option:
        near = nearest(scenario.baseline, scenario.option)
        yield f"'baseline' is '{scenario.baseline}': there is no such option{near}"
    for anchor in scenario.published:
        for device in (anchor.of, anchor.beside):
            if anchor.work not in works or device not in works[anchor.work].on:
                yield f"'published': '{device}' has no rate for '{anchor.work}'"


def _uneven(scenario: Scenario) -> Iterator[str]:
    """Yield what is wrong with the shapes of days."""
    for name, work in scenario.work.items():
        hours = work.shape_24h
        if hours is None:
            continue
        if len(hours) != 24 or min(hours) < 0 or max(hours) <= 0:
            yield f"'work.{name}.shape_24h' has {len(hours)} numbers: right: 24 of 0 or more, an hour each"


def _one_year(scenario: Scenario) -> Scenario:
    """Return the scenario with every amount in dollars of its currency year."""
    return _deflated(scenario, scenario.currency_year)


def _deflated(value: Any, year: int) -> Any:
    if isinstance(value, Quantity):
        if value.year in (None, year):
            return value
        moved = value.scaled(inflation(value.year or year, year))
        return moved.model_copy(
            update={"year": year, "source": f"{value.source} (dollars of {value.year})"[:600]}
        )
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: _deflated(getattr(value, name), year) for name in type(value).model_fields}
        )
    if isinstance(value, dict):
        return {name: _deflated(item, year) for name, item in value.items()}
    return value


def parse_settings(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as settings, values in TOML; raise `UserError` for what is none."""
    out: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text!r}: right: KEY=VALUE, as in --set site.pue=1.2")
        try:
            out[key.strip()] = tomllib.loads(f"x = {value}")["x"]
        except (tomllib.TOMLDecodeError, RecursionError):
            out[key.strip()] = value.strip()
    return out
