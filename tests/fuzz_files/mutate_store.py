"""Changes to the store of a sweep: its values, its tables, what SQLite lets stand in a file; its bytes."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import zlib
from collections.abc import Callable

from . import mutate, mutate_zip

VALUES = (
    *(v for v in mutate.INTEGERS if v < 2**63),
    0.5,
    1e308,
    float("inf"),
    None,
    b"\xff\0",
    *mutate.NAMES,
)
SCHEMES = (
    "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
    "CREATE VIEW v AS SELECT * FROM rows",
    "CREATE TABLE more (x)",
    "CREATE INDEX i ON rows (status)",
    "ALTER TABLE rows ADD COLUMN more TEXT",
    "ALTER TABLE rows RENAME COLUMN reason TO reasons",
    "DROP TABLE meta",
    "DELETE FROM meta",
    "DELETE FROM rows",
    "PRAGMA user_version = 9",
    "PRAGMA application_id = 7",
)
ENDLESS = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS point, '{}' AS params, "
    "'ok' AS status, '' AS reason, '{}' AS metrics, x'' AS layers FROM n"
)


def _cell(db: sqlite3.Connection, rng: random.Random) -> None:
    table, column = rng.choice(
        (
            ("meta", "value"),
            ("meta", "key"),
            *(("rows", c) for c in ("point", "params", "status", "metrics", "layers")),
        )
    )
    row = rng.choice([r[0] for r in db.execute(f"SELECT rowid FROM {table}")] or [0])
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (rng.choice(VALUES), row))


def _json(db: sqlite3.Connection, rng: random.Random) -> None:
    table, column = rng.choice(
        (("meta", "value"), ("rows", "params"), ("rows", "metrics"), ("rows", "layers"))
    )
    found = db.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    if not found:
        return
    row, value = rng.choice(found)
    with contextlib.suppress(zlib.error, ValueError, TypeError, AttributeError):
        packed = column == "layers"
        text = mutate_zip.json_text(zlib.decompress(value) if packed else value.encode(), rng)
        made = zlib.compress(text) if packed else text.decode("utf-8", "replace")
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (made, row))


def _rows(db: sqlite3.Connection, rng: random.Random) -> None:
    count = rng.choice((2, 300))
    db.execute(
        "INSERT OR IGNORE INTO rows SELECT r.point + 1 + n.x, params, status, reason, metrics, layers FROM "
        "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?) SELECT x FROM c) n, "
        "rows r",
        (count,),
    )


def _scheme(db: sqlite3.Connection, rng: random.Random) -> None:
    db.execute(rng.choice(SCHEMES))


def _view(db: sqlite3.Connection, rng: random.Random) -> None:
    db.execute("ALTER TABLE rows RENAME TO old")
    db.execute(f"CREATE VIEW rows AS {rng.choice((ENDLESS, 'SELECT * FROM old'))}")


def _words(db: sqlite3.Connection, rng: random.Random) -> None:
    """Write another scheme into the file than its tables have."""
    db.execute("PRAGMA writable_schema = ON")
    text = db.execute("SELECT sql FROM sqlite_master WHERE name = 'rows'").fetchone()
    changed = mutate.word(text[0] if text and text[0] else "", rng)
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'rows'", (changed,))


CHANGES: tuple[Callable[[sqlite3.Connection, random.Random], None], ...] = (
    *(_cell,) * 4, *(_json,) * 6, _rows, _scheme, _view, _words)  # fmt: skip


def store(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a store by SQL; now and then its bytes."""
    if rng.random() < 0.2:
        return mutate.plain(data, rng, other)
    db = sqlite3.connect(":memory:")
    with contextlib.closing(db):
        db.deserialize(data)
        with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
            for _ in range(rng.choice((1, 1, 2))):
                change = rng.choice(CHANGES)
                change(db, rng)
                if change is _view:  # of which the next change would read without end
                    break
            db.commit()
        with contextlib.suppress(sqlite3.Error):
            db.rollback()
        return db.serialize()
