"""The rows of a sweep on disk: one SQLite file, one writer, every row in a transaction.

The file says what it is (application id), in which form (user version) and what made it (spec, base chip,
code). It is read as a stranger's: sizes are bounded, values are checked, nothing in it is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..errors import UserError
from ..files.disk_cache import say_once
from .evaluate import Job
from .row import OK, Row
from .spec import Spec, make_spec
from .stored import check_row, checked_layers, parsed, row_of

APPLICATION = 0x4D544941  # "MTIA"
VERSION = 1  # of the tables below
MOST_VALUE_BYTES = 1 << 26
MOST_LAYERS_BYTES = 1 << 18  # of a row, for each model, as text
COMMIT_SECONDS = 0.2  # at most so much work is lost with the process
MEMORY = ":memory:"
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE rows (point INTEGER PRIMARY KEY, params TEXT NOT NULL, status TEXT NOT NULL, "
    "reason TEXT NOT NULL, metrics TEXT NOT NULL, layers BLOB NOT NULL)",
)


class Store:
    """A sweep's rows and what they came from. Use `create`, `resume` or `read`; close it, or use `with`."""

    def __init__(self, path: str, connection: sqlite3.Connection, lock: IO[bytes] | None = None) -> None:
        self.path, self.connection, self.lock = path, connection, lock
        self.last_commit = time.monotonic()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what can be, and close."""
        with contextlib.suppress(sqlite3.Error):  # closed already, or on a full disk, which has been told
            if self.connection.in_transaction:
                self.connection.commit()
        self.connection.close()
        if self.lock is not None:
            self.lock.close()

    def remove_empty(self) -> None:
        """Remove the file where no row is in it; the store is of no use then but to be closed."""
        with contextlib.suppress(UserError, OSError):
            if self.path != MEMORY and not self.count():
                os.unlink(self.path)

    def put(self, row: Row) -> None:
        """Add a row; one that is there already stays as it is."""
        values = (row.index, _json(row.params), row.status, row.reason, _json(row.metrics))
        layers = zlib.compress(_json(row.layers).encode(), 6)
        with _telling(self.path):
            self.connection.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?)", (*values, layers))
            if time.monotonic() - self.last_commit > COMMIT_SECONDS:
                self.commit()

    def commit(self) -> None:
        """Make everything put so far last."""
        with _telling(self.path):
            self.connection.commit()
        self.last_commit = time.monotonic()

    def note(self, key: str, value: Any) -> None:
        """Keep one of the facts about the sweep."""
        with _telling(self.path):
            self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, _json(value)))

    def get(self, key: str) -> Any:
        """Return one of the facts about the sweep, None where it is not there."""
        with _telling(self.path):
            row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else parsed(row[0], self.path)

    @property
    def spec(self) -> Spec:
        """Return the spec that made the store, checked."""
        values = self.get("spec")
        if not isinstance(values, dict):
            raise UserError(f"store {self.path}: it has no spec: damaged")
        return make_spec(values, f"store {self.path}")

    def done(self) -> set[int]:
        """Return the numbers of the points that have a row."""
        with _telling(self.path):
            return {int(point) for (point,) in self.connection.execute("SELECT point FROM rows")}

    def rows(self, *, layers: bool = False) -> Iterator[Row]:
        """Yield all rows by their number; without their layers unless asked for."""
        what = "point, params, status, reason, metrics, " + ("layers" if layers else "NULL")
        most = MOST_LAYERS_BYTES * len(self.spec.model) if layers else 0
        with _telling(self.path):
            for values in self.connection.execute(f"SELECT {what} FROM rows ORDER BY point"):
                yield row_of(values, self.path, most)

    def base(self, reason: str) -> Row:
        """Return the row of the base chip."""
        values = self.get("base")
        try:
            parts = [dict(values[key]) for key in ("params", "metrics", "layers")]
        except (TypeError, KeyError, ValueError):
            raise UserError(f"store {self.path} is damaged: the base chip's row cannot be read") from None
        params, metrics, layers = parts
        check_row(params, metrics, self.path, "the base chip's row")
        return Row(-1, params, OK, reason, metrics, checked_layers(layers, self.path))

    def count(self) -> int:
        """Return how many rows there are."""
        with _telling(self.path):
            return int(self.connection.execute("SELECT COUNT(*) FROM rows").fetchone()[0])


def create(path: str | os.PathLike[str], job: Job, facts: Mapping[str, Any]) -> Store:
    """Return a new store for a job, with further facts; raise `UserError` where there is a file already."""
    name = os.fspath(path)
    check_free(name)
    if name == MEMORY:
        return _fill(name, job, facts, None)
    lock = _locked(name, "x+b")
    try:
        return _fill(name, job, facts, lock)
    except BaseException:  # nothing is in it yet
        lock.close()
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise `UserError` where there is a file already, or no folder to make one in."""
    name = os.fspath(path)
    if name != MEMORY and Path(name).exists():
        raise UserError(f"store {name} exists: --resume continues it; or choose another file")
    if name != MEMORY and not Path(name).absolute().parent.is_dir():
        raise UserError(f"store {name}: the folder {str(Path(name).parent)!r} does not exist")


def _fill(name: str, job: Job, facts: Mapping[str, Any], lock: IO[bytes] | None) -> Store:
    """Return the store of an empty file with its tables and facts, all in one transaction."""
    store = Store(name, _connect(name, "rw"), lock)
    try:
        with _telling(name):
            store.connection.execute("BEGIN")
            form = (f"PRAGMA user_version = {VERSION}", f"PRAGMA application_id = {APPLICATION}")
            for statement in (*_TABLES, *form):
                store.connection.execute(statement)
            for key, value in {**_origin(job), **facts}.items():
                store.note(key, value)
            store.commit()
    except BaseException:
        store.connection.close()  # which takes back what was begun
        raise
    return store


def resume(path: str | os.PathLike[str], job: Job, facts: Callable[[], Mapping[str, Any]]) -> Store:
    """Return a store to go on with; raise `UserError` naming what differs where another job made it.

    One that was killed before anything was in it is begun anew, with `facts`.
    """
    name = os.fspath(path)
    _check_file(name)
    lock = _locked(name, "r+b")
    try:
        store = Store(name, _connect(name, "rw"), lock)
        with _telling(name):
            empty = not store.connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if empty:
            store.connection.close()
            return _fill(name, job, facts(), lock)
        _check(store)
        _check_origin(store, job)
    except BaseException:
        lock.close()
        raise
    return store


def read(path: str | os.PathLike[str]) -> Store:
    """Return a store to read from; raise `UserError` for what is none, is damaged or of a newer form."""
    name = os.fspath(path)
    _check_file(name)
    store = Store(name, _connect(name, "ro"))
    try:
        _check(store)
    except BaseException:
        store.close()
        raise
    return store


def _origin(job: Job) -> dict[str, Any]:
    spec = job.spec.model_dump(mode="json")
    return {
        "version": __version__,
        "code": job.code,
        "spec": spec,
        "seed": job.spec.seed,
        "chip": job.chip,
        "models": list(job.models),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _check_origin(store: Store, job: Job) -> None:
    """Refuse to go on with rows that another spec, chip, model or product made; say which."""
    right = "right: the same one, or a new store"
    new = _origin(job)
    if (store.get("version"), store.get("code")) != (new["version"], new["code"]):
        old = f"{store.get('version')} (code {store.get('code')})"
        raise UserError(
            f"store {store.path} was made by mtia-emu {old}, this is {new['version']} (code {new['code']}): "
            f"rows of two versions are not put together ({right})"
        )
    old_spec, new_spec = store.get("spec") or {}, json.loads(_json(new["spec"]))
    for key in sorted({*old_spec, *new_spec}):
        if old_spec.get(key) != new_spec.get(key):
            was, now = (str(s.get(key))[:100] for s in (old_spec, new_spec))
            raise UserError(
                f"store {store.path}: the spec has changed: '{key}' was {was}, is {now} ({right})"
            )
    for key, what in (("chip", "the base chip's file"), ("models", "a model's file")):
        if store.get(key) != json.loads(_json(new[key])):
            raise UserError(f"store {store.path}: {what} has changed since it was begun ({right})")


def _check_file(name: str) -> None:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"store {name} is not a file (right: what `mtia-emu sweep -o` wrote)")
    with _telling(name), path.open("rb") as file:
        head = file.read(16)
    if head and head != b"SQLite format 3\0":
        raise UserError(f"store {name} is not a store of a sweep: not an SQLite file")


def _check(store: Store) -> None:
    with _telling(store.path):
        identity = store.connection.execute("PRAGMA application_id").fetchone()[0]
        version = store.connection.execute("PRAGMA user_version").fetchone()[0]
        if identity != APPLICATION:
            raise UserError(f"store {store.path} is an SQLite file, but not the store of a sweep")
        if version > VERSION:
            raise UserError(
                f"store {store.path} is of form {version}, this version reads up to {VERSION}; use the "
                f"mtia-emu "
                "that wrote it, or a newer one"
            )
        _check_tables(store)
        fault = store.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise UserError(f"store {store.path} is damaged: {fault}")


def _check_tables(store: Store) -> None:
    """Refuse a file with more than our tables: a view may have no end, a trigger may undo what is written."""
    with contextlib.closing(sqlite3.connect(MEMORY)) as empty:
        for statement in _TABLES:
            empty.execute(statement)
        ours = _tables(empty)
    foreign = [name for name in _tables(store.connection) if name not in ours]
    if foreign or len(_tables(store.connection)) < len(ours):
        what = f"it has {foreign[0][0]} {foreign[0][1]!r} of its own" if foreign else "a table is missing"
        raise UserError(f"store {store.path} is damaged, or not the store of a sweep: {what}")


def _tables(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Return what there is in a file: tables, indices, views and triggers with their texts."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 10")
    return [tuple(str(part)[:1000] for part in row) for row in rows]


def _connect(name: str, mode: str) -> sqlite3.Connection:
    with _telling(name):
        if name == MEMORY:
            return sqlite3.connect(MEMORY)
        uri = f"{Path(name).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=5)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


def _locked(name: str, mode: str) -> IO[bytes]:
    """Return the file opened and locked for the one writer; held until the store is closed."""
    try:
        file = open(name, mode)  # noqa: SIM115  (closed with the store)
    except OSError as error:
        raise UserError(f"store {name} cannot be written: {error.strerror}") from None
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # no such locks here: SQLite's own still keep the file whole
    except BlockingIOError:
        file.close()
        raise UserError(f"store {name} is being written by another sweep") from None
    except OSError as error:
        text = f"store {name}: its file system has no locks ({error.strerror}); see that one sweep writes it"
        say_once("locks", text)
    return file


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what SQLite says of a file into an error for the user."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError) as error:  # texts of a damaged file may be none
        full = "full" in str(error)
        right = (
            " (right: free some space, then the sweep with --resume: what was written is kept)"
            if full
            else ""
        )
        raise UserError(f"store {name} cannot be read or written: {error}{right}") from None


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=False, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return dict(value)
