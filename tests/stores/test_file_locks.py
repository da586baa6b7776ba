"""SQLite's locks belong to the process: whatever it closes of a file drops them all (sqlite.org/howtocorrupt.html)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from forebay.stores.sqlite import FILE_NAME, open_file

ANOTHER_PROCESS = (
    "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); file.execute('PRAGMA user_version'); file.close()"
)


def test_who_opens_a_file_again_drops_no_locks(tmp_path: Path) -> None:
    """Else another process would take itself for the last, and remove the log of what was written since."""
    with closing(open_file(tmp_path)) as one, closing(open_file(tmp_path)):
        one.execute("CREATE TABLE written (number INTEGER)")
        subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / FILE_NAME)], check=True)
        one.execute("INSERT INTO written VALUES (1)")
        assert (tmp_path / f"{FILE_NAME}-wal").exists()
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
            assert other.execute("SELECT number FROM written").fetchall() == [(1,)]
