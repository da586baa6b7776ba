"""`forebay ledger verify | export | report | backup | restore`: the data file from outside."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from forebay.cli_data import at_console, print_table
from forebay.errors import ConfigurationError
from forebay.ledger.backup import back_up, restore
from forebay.ledger.export import export_csv, export_json, read_export
from forebay.ledger.report import GROUPS, report
from forebay.ledger.verify import check_chain, read_heads, verify
from forebay.settings import Settings
from forebay.stores.secret import read_or_create_secret
from forebay.stores.sqlite import FILE_NAME, open_for_reading

EXIT_FAULTS = 1


def add_ledger_commands(ledger: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and the settings and returns the exit code."""
    commands = ledger.add_subparsers(required=True, metavar="{verify,export,report,backup,restore}")
    check = commands.add_parser("verify", help="compute every hash, signature and sum anew; exit code 1 for faults")
    check.add_argument("export", nargs="?", type=Path, help="check this export instead of the data file")
    check.set_defaults(run=_verify)
    export = commands.add_parser("export", help="write all rows and signed heads to standard output")
    export.add_argument("--format", choices=("json", "csv"), default="json", help="default json, one object a line")
    export.set_defaults(run=_export)
    sums = commands.add_parser("report", help="settled sums")
    sums.add_argument("--by", default="tenant,key_id,model", help=f"comma-separated, of {', '.join(GROUPS)}")
    sums.add_argument("--since", type=_day, help="first day, UTC, as 2026-11-01")
    sums.add_argument("--until", type=_day, help="the day after the last, UTC")
    sums.add_argument("--json", action="store_true", help="one JSON array")
    sums.set_defaults(run=_report)
    save = commands.add_parser("backup", help="copy the data file while it is in use")
    save.add_argument("target", type=Path)
    save.set_defaults(run=_back_up)
    bring = commands.add_parser("restore", help="put a backup in the place of the data file; no server may use it")
    bring.add_argument("source", type=Path)
    bring.set_defaults(run=_restore)


def _verify(args: argparse.Namespace, settings: Settings) -> int:
    if args.export is not None:
        try:
            with args.export.open("rb") as lines:
                rows, heads = read_export(lines)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigurationError(f"{args.export} is not an export of a ledger: {exc}.") from exc
        faults = list(check_chain(rows, heads, _secret(settings, create=False)))
        num_rows, num_heads = len(rows), len(heads)
    else:
        with _reading(settings) as connection:
            faults = verify(connection, _secret(settings, create=True) or b"")
            (num_rows,) = connection.execute("SELECT count(*) FROM entries").fetchone()
            num_heads = len(read_heads(connection))
    for fault in faults:
        print(fault)
    print(f"{num_rows} rows, {num_heads} signed heads: {'NOT whole' if faults else 'whole'}.")
    return EXIT_FAULTS if faults else 0


def _export(args: argparse.Namespace, settings: Settings) -> int:
    with _reading(settings) as connection, contextlib.suppress(BrokenPipeError):
        for line in (export_json if args.format == "json" else export_csv)(connection):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0


def _report(args: argparse.Namespace, settings: Settings) -> int:
    groups = [name for name in args.by.split(",") if name]
    if unknown := [name for name in groups if name not in GROUPS]:
        raise ConfigurationError(f"--by: {unknown[0]!r} is none of {', '.join(GROUPS)}.")
    with _reading(settings) as connection:
        rows = report(connection, groups, args.since or 0, args.until)
    if args.json:
        print(orjson.dumps(rows).decode())
    else:
        _print_table(rows)
    return 0


def _back_up(args: argparse.Namespace, settings: Settings) -> int:
    with _failures(args.target):
        is_noted = back_up(settings.data_root, args.target, at_console())
    if not is_noted:
        print("The data file takes no row: the backup is in the audit of the copy alone.", file=sys.stderr)
    print(args.target)
    return 0


def _restore(args: argparse.Namespace, settings: Settings) -> int:
    with _failures(args.source):
        carried = restore(settings.data_root, args.source, at_console())
    if carried.fault is not None:
        said = f"The old data file cannot be read ({carried.fault}): what changed in keys since the backup is lost."
        print(f"{said} Revoke what was revoked since.", file=sys.stderr)
    for key_id in carried.revoked_again:
        print(f"Key {key_id} was revoked after the backup, and stays so.", file=sys.stderr)
    print(settings.data_root / FILE_NAME)
    return 0


def _secret(settings: Settings, *, create: bool) -> bytes | None:
    """What signs heads here; None where this installation has none and is not to get one."""
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    if create or (settings.data_root / "secret").exists():
        return read_or_create_secret(settings.data_root)
    return None


@contextmanager
def _reading(settings: Settings) -> Iterator[sqlite3.Connection]:
    """One snapshot of the data file."""
    path = settings.data_root / FILE_NAME
    if not path.exists():
        raise ConfigurationError(f"There is no data file {path}. Set FOREBAY_DATA_DIR or --data-dir.")
    with _failures(path), closing(open_for_reading(settings.data_root)) as connection:
        connection.execute("BEGIN")
        yield connection


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise ConfigurationError(f"{path}: {exc}.") from exc


def _day(text: str) -> int:
    """Unix milliseconds of a day's beginning."""
    return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("Nothing was settled in that time.")
        return
    print_table(
        [tuple(rows[0]), *(tuple("-" if value is None else str(value) for value in row.values()) for row in rows)]
    )
