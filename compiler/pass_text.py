"""Passes as text: a list of them, or changes of the pipeline that would run.

    legalise,fuse-maps{max-inputs=4},mine.py              these, in this order
    mine,default                                          one, then all that would run
    +mine@after:fuse-tails,-merge-siblings,-fold.2        one more at a place, one less, the second fold less

A name is that of a pass of ours, of one that an installed package brings, or a file FILE.py with one pass
in it (FILE.py:name where it has several), which is executed. A place names a pass of the pipeline, the first
of that name unless a number follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mtia_emu.errors import UserError, refuse_unknown

from .foreign import raised
from .passes import Pass
from .plugins import pass_named

DEFAULT = "default"  # in a list: all that would run
EXAMPLE = "legalise,fuse-maps{max-inputs=4}"
_OPTIONS = r"(?:\{(?P<options>[^{}]*)\})?"
_PLACE = r"(?:@(?P<side>before|after):(?P<anchor>[\w-]+(?:\.[0-9]+)?))?"
_NAME = r"(?P<name>[^\s,{}@]+\.py(?::\w[\w-]*)?|\w[\w-]*(?:\.[0-9]+)?)"
_ITEM = re.compile(rf"\s*(?P<sign>[+-]?)\s*{_NAME}\s*{_OPTIONS}\s*{_PLACE}\s*(?:,(?=\s*\S)|$)")


@dataclass(frozen=True)
class Steps:
    """A pipeline: passes for any machine, then those that suit the graph to a chip."""

    fused: tuple[Pass, ...]
    mapping: tuple[Pass, ...]

    @property
    def all(self) -> tuple[Pass, ...]:
        """Return all passes in order."""
        return (*self.fused, *self.mapping)


def parse_passes(spelling: str) -> tuple[Pass, ...]:
    """Return the passes that a text names, in order: `fuse-maps{max-inputs=4},set-precision{to=bf16}`.

    Options are the fields of a pass, with dashes; what is left out keeps its default. Raises `UserError` for
    text of another form, naming the nearest pass or option for one that is not known. `Pass.spelling` is the
    inverse.
    """
    steps = []
    for item in _items(spelling):
        if item["sign"] or item["side"]:
            raise UserError(f"{item[0].strip(', ')!r} changes a pipeline, here is none (right: {EXAMPLE})")
        steps.append(_pass(item["name"], item["options"] or ""))
    return tuple(steps)


def steps_of(default: Steps, spelling: str | None) -> Steps:
    """Return the pipeline that a text asks for, the default one without a text.

    Raises `UserError` as `parse_passes` does, and for a place that the pipeline does not have.
    """
    if spelling is None:
        return default
    items = _items(spelling)
    changes = [item for item in items if item["sign"]]
    if changes and len(changes) < len(items):
        plain = next(item for item in items if not item["sign"])
        raise UserError(
            f"--passes {spelling!r} both changes the pipeline and lists passes ({plain['name']}): right: one "
            "of the two, as +mine@after:fuse-tails or mine,default"
        )
    if not changes:
        return _listed(default, items)
    for item in changes:
        default = _added(default, item) if item["sign"] == "+" else _without(default, item)
    return default


def files_of(spelling: str | None) -> list[Path]:
    """Return the files of the user's that a text names."""
    names = [item["name"].partition(":")[0] for item in _items(spelling or "")]
    return [Path(name) for name in names if name.endswith(".py")]


def without_folders(spelling: str) -> str:
    """Return a text that names files without saying where they lie."""
    return re.sub(r"[^\s,{}@+]*/(?=[^/\s,{}@]+\.py)", "", spelling) or "none"


def _items(spelling: str) -> list[re.Match[str]]:
    items, at = [], 0
    while at < len(spelling.rstrip()):
        match = _ITEM.match(spelling, at)
        if match is None:
            wrong = spelling[at:].strip()
            raise UserError(
                f"not a pass: {wrong!r} in {spelling!r} (right: {EXAMPLE}, or +mine@after:fuse-tails)"
            )
        items.append(match)
        at = match.end()
    return items


def _listed(default: Steps, items: Sequence[re.Match[str]]) -> Steps:
    """Return a list of passes as a pipeline; its second part begins with the first that is for a chip."""
    fused: list[Pass] = []
    mapping: list[Pass] = []
    kinds = tuple({type(p) for p in default.mapping} - {type(p) for p in default.fused})
    for item in items:
        if item["side"]:
            raise UserError(
                f"{item[0].strip(', ')!r}: a place is for +{item['name']} (right: a list has an order)"
            )
        if item["name"] == DEFAULT:
            (mapping if mapping else fused).extend(default.fused)
            mapping.extend(default.mapping)
            continue
        one = _pass(item["name"], item["options"] or "")
        (mapping if mapping or isinstance(one, kinds) else fused).append(one)
    return Steps(tuple(fused), tuple(mapping))


def _added(steps: Steps, item: re.Match[str]) -> Steps:
    """Return the pipeline with one pass more, in the part where its place is."""
    if item["anchor"] is None:
        known = ", ".join(dict.fromkeys(step.name for step in steps.all))
        raise UserError(
            f"+{item['name']} needs its place in the pipeline (right: +{item['name']}@after:fuse-tails; "
            f"passes: {known})"
        )
    one = _pass(item["name"], item["options"] or "")
    at = _place(steps, item["anchor"]) + (item["side"] == "after")
    if at < len(steps.fused) or (at == len(steps.fused) and item["side"] == "after"):
        return Steps((*steps.fused[:at], one, *steps.fused[at:]), steps.mapping)
    at -= len(steps.fused)
    return Steps(steps.fused, (*steps.mapping[:at], one, *steps.mapping[at:]))


def _without(steps: Steps, item: re.Match[str]) -> Steps:
    """Return the pipeline without the passes of a name, or without the one of a number."""
    name = item["name"]
    if item["side"] or item["options"]:
        raise UserError(
            f"{item[0].strip(', ')!r}: a pass to leave out has neither place nor options (right: -{name})"
        )
    at = _place(steps, name)
    numbered = "." in name

    def stays(index: int, step: Pass) -> bool:
        return index != at if numbered else step.name != name

    kept = [stays(i, step) for i, step in enumerate(steps.all)]
    fused = tuple(step for step, keep in zip(steps.fused, kept, strict=False) if keep)
    rest = kept[len(steps.fused) :]
    return Steps(fused, tuple(step for step, keep in zip(steps.mapping, rest, strict=True) if keep))


def _place(steps: Steps, anchor: str) -> int:
    """Return the index of the pass that `name` or `name.number` means, counted from 1."""
    name, _, number = anchor.partition(".")
    places = [index for index, step in enumerate(steps.all) if step.name == name]
    if not places:
        raise refuse_unknown("pass of the pipeline", name, {step.name for step in steps.all})
    if not 1 <= int(number or 1) <= len(places):
        raise UserError(f"the pipeline has {len(places)} passes {name}, there is no {anchor}")
    return places[int(number or 1) - 1]


def _pass(name: str, options: str) -> Pass:
    pass_class = pass_named(name)
    known = {f.name.replace("_", "-"): f for f in fields(pass_class)}
    values: dict[str, Any] = {}
    for option in filter(None, map(str.strip, options.split(","))):
        key, equals, value = map(str.strip, option.partition("="))
        if key not in known:
            raise refuse_unknown(f"option of pass {name}", key, known)
        kind: type[Any] = type(known[key].default)
        try:
            values[known[key].name] = _truth(value) if kind is bool else kind(value)
        except ValueError:
            equals = ""
        if not equals:
            right = f"{key}={known[key].default}"
            raise UserError(f"pass {name}: option {option!r} is not {key}={kind.__name__} (right: {right})")
    try:
        return pass_class(**values)
    except UserError:
        raise
    except Exception as error:  # its author's own check of its options
        raise UserError(f"pass {name}: {raised(error, pass_class)}") from error


def _truth(word: str) -> bool:
    """Return what `true` or `false` says; raise `ValueError` for another word."""
    return ("false", "true").index(word.lower()) == 1
