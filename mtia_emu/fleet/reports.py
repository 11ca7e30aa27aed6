"""Rates and joules of a device, read from a report that the tool wrote of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.json_file import read_json
from ..results.report_json import SCHEMA
from ..serving.answers_json import SCHEMA as SERVED

MAX_BYTES = 1 << 24
KEYS = {"file", "units", "machine", "error_share"}
SERVED_KEYS = {"file", "counts", "error_share"}
RATES = {  # what is counted of requests served, and the answer with its rate
    "output tokens": "output_tokens_per_s",
    "input tokens": "input_tokens_per_s",
    "requests": "served_rate_per_s",
}
MOST = 1e18


def reported(asked: Any, folder: Path, where: str) -> dict[str, Any]:
    """Return `per_s` and `joules` as a scenario's TOML would have them, by what it says of a report.

    `file` is JSON of `mtia-emu run` or of `mtia-emu serve`, relative to the scenario; `error_share` how far
    off its seconds may be. Of a run: `units` is how many units of work it does, runs one after another;
    `machine` "chip" (the usual) or "gpu", the one beside it, whose error is known from measured kernels. Of
    requests served: `counts` is one of `RATES`, and what is given is a chip's share of what was served, at
    the load of that file. Raises `UserError`, also where requests did not keep their service level.
    """
    if not isinstance(asked, dict) or "file" not in asked or not set(asked) <= KEYS | SERVED_KEYS:
        raise UserError(f"{where}: {_right()}")
    path = folder / str(asked["file"])
    value = _json(path, where)
    if value.get("schema") == SERVED and set(asked) <= SERVED_KEYS and asked.get("counts") in RATES:
        return _of_served(value, asked, where)
    if value.get("schema") == SERVED:
        known = ", ".join(f'"{name}"' for name in RATES)
        raise UserError(
            f"{where}: {path} is of requests served (right: beside file and error_share only counts, one "
            f"of {known})"
        )
    if "units" not in asked or "counts" in asked:
        raise UserError(f"{where}: {_right()}")
    return _of_run(_run(value, path, str(asked.get("machine", "chip")), where), asked, where)


def _right() -> str:
    return (
        'right: { file = "run.json", units = 64, error_share = 0.2 }, or of `mtia-emu serve` '
        '{ file = "serve.json", counts = "output tokens", error_share = 0.2 }'
    )


def _of_run(run: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> dict[str, Any]:
    units = _number(asked, "units", where)
    seconds, joules = _number(run, "seconds", where), _number(run, "joules", where)
    band = _band(run.get("seconds_band"), asked, where)
    source = f"{asked['file']}: {run.get('name', run.get('chip'))}, {units:g} units in {seconds:.4g} s"
    return _said(units / seconds, joules / units, band, source)


def _of_served(value: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> dict[str, Any]:
    found, counts = value.get("answers"), asked["counts"]
    if not isinstance(found, dict):
        raise UserError(f"{where}: {asked['file']} has no answers")
    kept, level = found.get("kept_share"), found.get("level")
    if found.get("keeps_level") is False:
        share = f"{kept:.1%} of" if isinstance(kept, float) else "too few"
        raise UserError(
            f"{where}: {asked['file']}: {share} requests keep the service level (right: a run at a rate that "
            "keeps it, as `mtia-emu serve --rate max --slo ...` finds)"
        )
    rate, chips = _number(found, RATES[counts], where), _number(found, "chips", where)
    joules = None
    if found.get("joules") is not None:
        joules = _number(found, "joules", where) / (rate * _number(found, "span_s", where))
    promised = f"{kept:.1%} keep the level" if level and isinstance(kept, float) else "no level was asked for"
    source = (
        f"{asked['file']}: {value.get('model')} on {value.get('machine')}, {rate:.4g} {counts} a second of "
        f"{chips:g} chips, {promised}"
    )
    return _said(rate / chips, joules, _band(None, asked, where), source)


def _said(per_s: float, joules: float | None, band: tuple[float, float], source: str) -> dict[str, Any]:
    slow, fast = band
    said = {"source": source[:600], "status": "computed"}
    out: dict[str, Any] = {"per_s": {"value": per_s, "low": per_s / slow, "high": per_s / fast} | said}
    return out if joules is None else out | {"joules": {"value": joules} | said}


def _json(path: Path, where: str) -> Mapping[str, Any]:
    try:
        value = read_json(path, "what `mtia-emu run` or `serve` writes with --json", MAX_BYTES)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not isinstance(value, dict) or value.get("schema") not in (SCHEMA, SERVED):
        raise UserError(
            f"{where}: {path} is no report (right: what `mtia-emu run` or `serve` writes with --json)"
        )
    return value


def _run(value: Mapping[str, Any], path: Path, machine: str, where: str) -> Mapping[str, Any]:
    run = value if machine == "chip" else value.get(machine)
    if not isinstance(run, dict):
        raise UserError(f'{where}: {path} has no machine \'{machine}\' (right: "chip", or "gpu" beside it)')
    return run


def _band(known: Any, asked: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Return how many times its seconds a run may take, at most and at least."""
    if "error_share" in asked:
        share = _number(asked, "error_share", where, least=0.0, most=0.99)
        return 1 + share, 1 - share
    if isinstance(known, dict):
        return _number(known, "high", where), _number(known, "low", where)
    raise UserError(f"{where} has no error_share: how far off are the emulator's seconds?")


def _number(
    table: Mapping[str, Any], key: str, where: str, least: float = 1e-15, most: float = MOST
) -> float:
    value = table.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)  # not a number lies in no bounds
    raise UserError(f"{where}: '{key}' is {str(value)[:40]}: right: a number from {least:g} to {most:g}")
