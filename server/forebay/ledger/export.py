"""The ledger as lines for others to read and to check, and read back."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import orjson

from forebay.ledger.rows import COLUMNS, Entry
from forebay.ledger.verify import Head, Row, read_heads, read_rows


def export_json(connection: sqlite3.Connection) -> Iterator[bytes]:
    """A JSON object a line: `{"row": {...}}` in the order of the chain, then `{"head": {...}}`; hashes in hex.

    What `ledger/chain.py` says of the hash lets anybody check it; the heads of an earlier export prove to who kept them
    that nothing was changed since.
    """
    for seq, entry, digest in read_rows(connection):
        yield orjson.dumps({"row": {"seq": seq, **entry._asdict(), "hash": digest.hex()}}) + b"\n"
    for head in read_heads(connection):
        line = {**asdict(head), "hash": head.hash.hex(), "signature": head.signature.hex()}
        yield orjson.dumps({"head": line}) + b"\n"


def export_csv(connection: sqlite3.Connection) -> Iterator[bytes]:
    """The rows for a spreadsheet, a header line first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for seq, entry, digest in read_rows(connection):
        writer.writerow((seq, *map(_inert, entry), digest.hex()))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if remaining := text.getvalue():
        yield remaining.encode()


def _inert(value: object) -> object:
    """Spreadsheets run what begins like a formula, and some columns hold clients' words."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def read_export(lines: Iterable[bytes]) -> tuple[list[Row], list[Head]]:
    """What `export_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    rows: list[Row] = []
    heads: list[Head] = []
    for line in lines:
        record = orjson.loads(line)
        if "row" in record:
            columns = record["row"]
            rows.append((columns.pop("seq"), *_entry_and_hash(columns)))
        else:
            head = record["head"]
            hashes = {name: bytes.fromhex(head[name]) for name in ("hash", "signature")}
            heads.append(Head(**{**head, **hashes}))
    return rows, heads


def _entry_and_hash(columns: dict[str, object]) -> tuple[Entry, bytes]:
    digest = bytes.fromhex(str(columns.pop("hash")))
    return Entry(**columns), digest  # type: ignore[arg-type]  # wrong values give another hash
