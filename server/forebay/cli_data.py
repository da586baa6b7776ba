"""What the commands on the data file share: reading it, one act of an administrator on it, and how things are shown."""

from __future__ import annotations

import os
import pwd
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import orjson

from forebay.errors import ApiError, ConfigurationError
from forebay.settings import Settings
from forebay.stores.sqlite import open_file
from forebay.tenants.authority import Administrator

T = TypeVar("T")


def administer(settings: Settings, act: Callable[[sqlite3.Connection, Administrator], T]) -> T:
    """One act of this system's user, durable when it returns. Raises ConfigurationError for what is refused."""
    admin = at_console()
    with data_file(settings) as file:
        file.execute("BEGIN IMMEDIATE")
        try:
            outcome = act(file, admin)
        except ApiError as exc:
            file.execute("ROLLBACK")
            raise ConfigurationError(exc.message) from exc
        file.execute("COMMIT")
    return outcome


@contextmanager
def data_file(settings: Settings) -> Iterator[sqlite3.Connection]:
    try:
        with closing(open_file(settings.data_root)) as connection:
            yield connection
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The data file in {settings.data_root} cannot be used: {exc}.") from exc


def at_console() -> Administrator:
    return Administrator.at_console(_user())


def _user() -> str:
    """Who the kernel says runs this, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def print_json(value: Any) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def printable(text: str) -> str:
    """What others chose, names and users for example, for a terminal: it would obey control characters."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def print_table(rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
