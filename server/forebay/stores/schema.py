"""The tables of the data file, by version: what a new file gets, and how an older one becomes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from forebay.errors import ConfigurationError

LEDGER = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- Append-only. What each column holds is said in ledger/rows.py.
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    reserved_at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    user_id TEXT,
    model TEXT NOT NULL,
    adapter TEXT,
    route TEXT NOT NULL,
    streamed INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    finish_reason TEXT,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    reserved_cost INTEGER NOT NULL,
    price_version TEXT,
    cache_kind TEXT,
    queue_us INTEGER,
    prefill_us INTEGER,
    decode_us INTEGER,
    client_request_id TEXT,
    retry_count INTEGER,
    safety_identifier TEXT,
    metadata TEXT,
    recovered INTEGER NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (request_id, kind)
);
CREATE INDEX entries_reserved_at ON entries (reserved_at);

-- Reservations (ledger/rows.py, a JSON array) with the completion tokens of their last checkpoint; settlement clears
-- them.
CREATE TABLE open_requests (
    request_id TEXT PRIMARY KEY,
    reservation TEXT NOT NULL,
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID;

-- Settled sums by day, for budgets; `forebay ledger verify` compares them with the entries.
CREATE TABLE daily_totals (
    day INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    num_requests INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, key_id)
) WITHOUT ROWID;

-- Where the chain of hashes stood, signed: once a month of entries is complete, at each stop, and from time to time.
CREATE TABLE heads (
    seq INTEGER PRIMARY KEY,
    segment TEXT NOT NULL,
    at INTEGER NOT NULL,
    closes_segment INTEGER NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL
);

-- Without a price the cost is engine time, and no money.
CREATE TRIGGER settled AFTER INSERT ON entries WHEN NEW.kind = 'settle'
BEGIN
    DELETE FROM open_requests WHERE request_id = NEW.request_id;
    INSERT INTO daily_totals (day, tenant, key_id, num_requests, num_tokens, cost)
    VALUES (
        NEW.reserved_at / 86400000,
        NEW.tenant,
        NEW.key_id,
        1,
        NEW.prompt_tokens + NEW.completion_tokens,
        CASE WHEN NEW.price_version IS NULL THEN 0 ELSE NEW.cost END
    )
    ON CONFLICT (day, tenant, key_id) DO UPDATE SET
        num_requests = num_requests + 1,
        num_tokens = num_tokens + excluded.num_tokens,
        cost = cost + excluded.cost;
END;

CREATE TABLE price_tables (
    version TEXT PRIMARY KEY,
    prices TEXT NOT NULL
) WITHOUT ROWID;
"""

KEYS = """
-- `fields` is JSON (tenants/keys.py). `updated_at`, Unix ms, grows with each change: where two copies of a row meet,
-- the later one counts, but for `revoked_at`, which stays. `changed` is the file's own number of the row's last change.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    fields TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    updated_at INTEGER NOT NULL,
    changed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_changed ON keys (changed);
CREATE INDEX keys_tenant ON keys (tenant);

-- SHA-256 of what callers send. A key that was rotated has several; `ends_at` is when an older one stops working.
CREATE TABLE key_secrets (
    digest BLOB PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES keys (id),
    last_four TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ends_at INTEGER
) WITHOUT ROWID;
CREATE INDEX key_secrets_key ON key_secrets (key_id);

CREATE TABLE tenants (
    name TEXT PRIMARY KEY,
    policy TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    changed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tenants_changed ON tenants (changed);

-- What administrators did. Append-only.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    via TEXT NOT NULL,
    act TEXT NOT NULL,
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant, seq);
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows stay'); END;
-- INSERT OR REPLACE fires no trigger for what it deletes.
CREATE TRIGGER audit_keeps_places BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'audit rows stay'); END;
CREATE TRIGGER audit_keeps_words BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows stay'); END;
"""

IDEMPOTENCY = """
-- Answers to requests with an Idempotency-Key, for whoever repeats the request. `id` is a digest of whose key it is and
-- of the key, `fingerprint` of the body. `expires_at` is in Unix ms. `body` is NULL where the answer is not kept.
CREATE TABLE idempotent_answers (
    id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB
);
CREATE INDEX idempotent_answers_expiry ON idempotent_answers (expires_at);
"""

CACHE_LABELS = """
-- What labels have shown of the semantic cache's hits. `owner` is a tenant or a group of tenants, `state` JSON
-- (cache/assurance.py). `num_imports` grows when a state comes from elsewhere, so that the server notices.
CREATE TABLE cache_labels (
    owner TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    num_imports INTEGER NOT NULL
) WITHOUT ROWID;
"""

MIGRATIONS = {2: LEDGER + KEYS + IDEMPOTENCY + CACHE_LABELS}
"""Scripts that take a file to a version from the one before. What was released is never changed, only added to."""

VERSION = max(MIGRATIONS)
UNRELEASED = 1
"""Had reservations in the chain, and nobody has it."""


def migrate(connection: sqlite3.Connection, steps: Mapping[int, str] = MIGRATIONS) -> None:
    """Brings the file to the last of the steps, each in a transaction of its own: one that fails leaves nothing behind.

    Raises ConfigurationError for newer files, sqlite3.Error.
    """
    version = _version_of(connection)
    if version > (newest := max(steps)):
        raise ConfigurationError(
            f"The data file has version {version}; this Forebay knows versions up to {newest}. Use a newer Forebay."
        )
    if version == UNRELEASED:
        raise ConfigurationError(
            "The data file is of a version before the first release. Set FOREBAY_DATA_DIR to another folder."
        )
    for number, script in steps.items():
        if number <= version:
            continue
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if _version_of(connection) < number:  # else another process has done it meanwhile
                raise


def _version_of(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
