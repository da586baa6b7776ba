"""SQLite's locks belong to the process: whatever it closes of a file drops them all (sqlite.org/howtocorrupt.html)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from forebay.cache.stores.sqlite_rows import FILE_NAME as CACHE_FILE
from forebay.cache.stores.sqlite_rows import open_cache_file
from forebay.stores.sqlite import FILE_NAME, open_file

ANOTHER_PROCESS = (
    "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); file.execute('PRAGMA user_version'); file.close()"
)


@pytest.mark.parametrize(("name", "opens"), [(FILE_NAME, open_file), (CACHE_FILE, open_cache_file)])
def test_who_opens_a_file_again_drops_no_locks(
    tmp_path: Path, name: str, opens: Callable[[Path], sqlite3.Connection]
) -> None:
    """Else another process would take itself for the last, and remove the log of what was written since."""
    with closing(opens(tmp_path)) as one, closing(opens(tmp_path)):
        one.execute("CREATE TABLE written (number INTEGER)")
        subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / name)], check=True)
        one.execute("INSERT INTO written VALUES (1)")
        assert (tmp_path / f"{name}-wal").exists()
        with closing(sqlite3.connect(tmp_path / name)) as other:
            assert other.execute("SELECT number FROM written").fetchall() == [(1,)]


@pytest.mark.parametrize(("name", "opens"), [(FILE_NAME, open_file), (CACHE_FILE, open_cache_file)])
def test_who_makes_a_new_file_at_the_same_time_is_waited_for(
    tmp_path: Path, name: str, opens: Callable[[Path], sqlite3.Connection]
) -> None:
    """As commands that come at once do; SQLite by itself refuses the second one at once."""
    with closing(sqlite3.connect(tmp_path / name, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.2, other.execute, ["COMMIT"])
        ends.start()
        with closing(opens(tmp_path)) as file:
            assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        ends.join()
