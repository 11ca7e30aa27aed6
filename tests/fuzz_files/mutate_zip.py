"""Changes to zip files: programs (a JSON header and arrays) and .npz files."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from typing import Any

import numpy as np

from mtia_emu.program.isa import COMMAND

from . import mutate

Members = list[tuple[str, bytes]]
VALUES = (
    *mutate.INTEGERS,
    -0.5,
    1e300,
    True,
    None,
    [],
    {},
    *mutate.NAMES,
    "fp16[2,3]",
    "dram",
    "sram",
    "fp32",
)


def unpacked(data: bytes) -> Members:
    """Return the members of a zip file."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def packed(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file with these members, whatever their names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name are meant
        for name, data in members:
            info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            info.filename = name.replace("\0", "0") or "x"
            file.writestr(info, data, method, 1)
    return out.getvalue()


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a JSON value: a container and a key or index in it."""
    found, pending = [], [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            found += [(holder, key) for key in keys]
            pending += [holder[key] for key in keys]
    return found


def json_value(value: Any, rng: random.Random) -> None:
    """Change one place of a JSON value, in place."""
    found = spots(value)
    if not found:
        return
    holder, key = rng.choice(found)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = rng.choice(found)
        try:
            holder[key] = json.loads(json.dumps(other[place]))
        except (LookupError, TypeError):
            holder[key] = 0
    elif kind == 2 and isinstance(holder, list) and len(holder) < 20_000:
        holder[key:key] = [holder[key]] * rng.choice((1, 3, 100, 5000))
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice(mutate.NAMES)] = holder[key]
    else:
        holder[key] = rng.choice(VALUES)


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON text: mostly by its values, now and then by its letters."""
    if rng.random() < 0.2:
        return mutate.text(data, rng, data)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        json_value(value, rng)
    return json.dumps(value).encode()[: mutate.MOST_BYTES]


def commands(data: bytes, rng: random.Random) -> bytes:
    """Change fields of some commands of a block."""
    table = np.frombuffer(data, COMMAND).copy()
    for _ in range(rng.choice((1, 1, 2, 5)) if len(table) else 0):
        row, field = rng.randrange(len(table)), rng.choice(COMMAND.names or ())
        flat = table[field].reshape(len(table), -1)
        if flat.dtype.kind == "f":
            flat[row, rng.randrange(flat.shape[1])] = rng.choice((0.0, np.nan, np.inf, -1e30))
            continue
        bounds = np.iinfo(flat.dtype)
        near = int(flat[row, 0]) + rng.choice((-64, -1, 1, 64))
        drawn = rng.choice((*mutate.INTEGERS, near, near, near, bounds.max, bounds.min))
        flat[row, rng.randrange(flat.shape[1])] = min(max(drawn, bounds.min), bounds.max)
    return table.tobytes()


def program(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a saved program: its header, a block, a weight, its members; now and then its bytes."""
    if rng.random() < 0.1:
        return mutate.plain(data, rng, other)
    members = unpacked(data)
    kind = rng.randrange(10)
    blocks = [i for i, (name, _) in enumerate(members) if name.startswith("block")]
    if kind < 5:
        members[0] = (members[0][0], json_text(members[0][1], rng))
    elif kind < 8 and blocks:
        at = rng.choice(blocks)
        members[at] = (members[at][0], commands(members[at][1], rng))
    else:
        members = shuffled(members, rng)
    return packed(members)


def shuffled(members: Members, rng: random.Random) -> Members:
    """Rename, double, drop, cut or fill a member."""
    at = rng.randrange(len(members))
    name, data = members[at]
    kind = rng.randrange(5)
    if kind == 0:
        return [*members, (name, data)]
    if kind == 1:
        return members[:at] + members[at + 1 :]
    changed = {
        2: (rng.choice(mutate.NAMES), data),
        3: (name, mutate.plain(data, rng, members[0][1])),
        4: (name, bytes(rng.choice((0, 1 << 16, 1 << 24)))),
    }
    return [*members[:at], changed[kind], *members[at + 1 :]]


DESCRIPTIONS = (  # of an array's elements
    *("'<f4'", "'<i8'", "'|V2'", "'|O'", "'<U4'", "'<M8[ns]'", "'>f4'", "'|b1'", "'<c8'", "'<f16'"),
    *("[('a', '<f4')]", "'<V999999999'", "'" + "a" * 300 + "'", "__import__('os')"),
)


def npy(descr: str, shape: str, data: bytes, order: str = "False") -> bytes:
    """Return the bytes of an .npy file with that header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) & 0xFFFF) + header.encode() + data


def arrays(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change an .npz file: a header, an array, its members; now and then its bytes."""
    if rng.random() < 0.25:
        return mutate.plain(data, rng, other)
    members = unpacked(data)
    kind = rng.randrange(4)
    if kind == 0:
        return packed(shuffled(members, rng))
    at = rng.randrange(len(members))
    name, body = members[at]
    if kind == 1:
        return packed([*members[:at], (name, mutate.plain(body, rng, other)), *members[at + 1 :]])
    descr = rng.choice(DESCRIPTIONS)
    size = rng.choice(mutate.NUMBERS)
    shape = rng.choice(
        (f"({size},)", f"(2, {size})", "()", "(" * 90 + ")" * 90, "(1,) * 10**9", "(2, 4)", f"{size}")
    )
    changed = (
        name,
        npy(descr, shape, bytes(rng.choice((0, 8, 32, 1 << 16))), rng.choice(("False", "True", "2"))),
    )
    return packed([*members[:at], changed, *members[at + 1 :]])
