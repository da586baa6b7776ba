"""Files of older releases become what this one needs, or stay what they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from forebay.errors import ConfigurationError
from forebay.stores.schema import MIGRATIONS, VERSION, migrate
from forebay.stores.sqlite import FILE_NAME, open_file

NEXT = """
ALTER TABLE tenants ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';
CREATE TABLE colours (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO colours SELECT name FROM tenants;
"""
HALF = NEXT + "INSERT INTO nowhere VALUES (1);"
TENANT = "INSERT INTO tenants VALUES ('acme', '{}', 1, 1)"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A file of today's release with a row in it."""
    with closing(open_file(tmp_path)) as connection:
        connection.execute(TENANT)
        yield connection


def contents(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version, list(connection.iterdump())


def test_each_step_that_a_file_lacks_is_taken_once(old: sqlite3.Connection) -> None:
    """In order, on the rows that are there, which stay."""
    steps = {**MIGRATIONS, VERSION + 1: NEXT, VERSION + 2: "UPDATE tenants SET colour = 'red'"}
    migrate(old, steps)
    assert old.execute("SELECT name, updated_at, colour FROM tenants").fetchall() == [("acme", 1, "red")]
    assert old.execute("SELECT name FROM colours").fetchall() == [("acme",)]
    after = contents(old)
    assert after[0] == VERSION + 2
    migrate(old, steps)
    assert contents(old) == after


def test_one_that_fails_half_way_leaves_the_file_as_it_was(old: sqlite3.Connection) -> None:
    """What it had done is taken back, the steps before it stay, and once it is mended it is taken."""
    migrate(old, {**MIGRATIONS, VERSION + 1: "UPDATE tenants SET updated_at = 2"})
    before = contents(old)
    steps = {**MIGRATIONS, VERSION + 1: "UPDATE tenants SET updated_at = 3", VERSION + 2: HALF}
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(old, steps)
    assert not old.in_transaction
    assert contents(old) == before
    migrate(old, {**steps, VERSION + 2: NEXT})
    assert old.execute("SELECT updated_at, colour FROM tenants").fetchall() == [(2, "none")]


def test_a_file_that_is_cut_off_in_a_step_is_migrated_by_the_next_start(
    tmp_path: Path, old: sqlite3.Connection
) -> None:
    """Nothing of a step counts before all of it does, also for a process that ends within it."""
    before = contents(old)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as cut_off:
        cut_off.executescript(f"BEGIN IMMEDIATE; {NEXT}")
    assert contents(old) == before
    migrate(old, {**MIGRATIONS, VERSION + 1: NEXT})
    assert contents(old)[0] == VERSION + 1


def test_a_newer_file_keeps_every_row(tmp_path: Path, old: sqlite3.Connection) -> None:
    """It is refused with both versions named."""
    migrate(old, {**MIGRATIONS, VERSION + 1: NEXT})
    before = contents(old)
    with pytest.raises(ConfigurationError, match=f"version {VERSION + 1}; .* up to {VERSION}"):
        open_file(tmp_path)
    assert contents(old) == before
