"""Keys and tenants that several servers have in common: each keeps them in its own file, and Redis carries changes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable
from functools import partial

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from forebay.errors import StorageUnavailable
from forebay.stores.database import Database
from forebay.stores.redis_impl.link import RedisLink, RedisUnavailable
from forebay.tenants.conversation import Conversation
from forebay.tenants.directory import Directory
from forebay.tenants.key_rows import merge_rows, names_of, read_rows
from forebay.tenants.key_store import changes_after
from forebay.tenants.key_watch import KeyWatch

POLL_S = 0.25
"""A change is in the file, in Redis, and in every other server's file within a second."""

CHUNK = 100

SWAP = """#!lua
-- Replaces a row, if it is still as it was read, and tells everybody.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[1])
return 1
"""

log = structlog.get_logger(__name__)


class KeySync:
    """Merges what it finds, in whatever order: of two changes the later counts, and a revocation stays.

    While Redis is away every server goes on with the keys that it knows, and its own command line and admin API change
    them; all is exchanged once Redis is back, also when it was wiped.
    """

    def __init__(
        self, link: RedisLink, conversation: Conversation, database: Database, directory: Directory, watch: KeyWatch
    ) -> None:
        self._link = link
        self._conversation = conversation
        self._database = database
        self._directory = directory
        self._watch = watch
        self._task: asyncio.Task[None] | None = None
        self._origin: tuple[bytes, bytes] | None = None
        self._published = 0
        self._seen = 0
        self._refused: set[str] = set()
        self._synced_at = time.monotonic()

    def begin(self) -> None:
        """On the running loop, once the file's keys were read."""
        self._task = asyncio.create_task(self._run(), name="key-sync")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def families(self) -> list[Metric]:
        return [
            GaugeMetricFamily(
                "forebay_keys_age_seconds",
                "How long ago keys were last compared with those of the other servers.",
                value=time.monotonic() - self._synced_at,
            )
        ]

    async def _run(self) -> None:
        while True:
            if self._conversation.is_up:
                with contextlib.suppress(RedisUnavailable, StorageUnavailable):  # told of by who else uses them
                    await self._sync()
            await asyncio.sleep(POLL_S)

    async def _sync(self) -> None:
        await self._watch.refresh()
        version = await self._version()
        local = self._directory.version
        if local != self._published:
            self._conversation.say_all()
        if (local, version) != (self._published, self._seen):
            changes = await self._database.read(partial(changes_after, version=self._published))
            changed = await self._link.call("ZRANGEBYSCORE", self._name("changed"), f"({self._seen}", "+inf")
            names = sorted(names_of(changes) | {name.decode() for name in changed})
            done = True
            for start in range(0, len(names), CHUNK):
                done &= await self._exchange(names[start : start + CHUNK])
            await self._watch.refresh()
            self._seen = version
            if done:
                self._published = changes.version
        self._synced_at = time.monotonic()

    async def _version(self) -> int:
        """Of the rows in Redis. Where it is another Redis than before, or a wiped one, all is to be exchanged again."""
        await self._link.call("SET", self._name("origin"), secrets.token_hex(8), "NX")
        origin, version = await self._link.call("MGET", self._name("origin"), self._name("version"))
        if self._origin != (origin, self._conversation.run_id):
            self._origin = (origin, self._conversation.run_id)
            self._published = self._seen = 0
        return int(version or 0)

    async def _exchange(self, names: list[str]) -> bool:
        """False where somebody else changed a row at the same time: once more."""
        found = await self._link.call("HMGET", self._name(), *names)
        theirs: dict[str, bytes] = {name: row for name, row in zip(names, found, strict=True) if row is not None}
        ours = await self._database.read(partial(read_rows, names=names))
        if new := {name: row for name, row in theirs.items() if row != ours[name] and name not in self._refused}:
            ours |= await self._merged(new)
        done = True
        for name, row in ours.items():
            if row is not None and row != theirs.get(name) and name not in self._refused:
                keys = (self._name(), self._name("changed"), self._name("version"))
                done &= await self._link.call("EVAL", SWAP, 3, *keys, name, theirs.get(name, b""), row) == 1
        return done

    async def _merged(self, rows: dict[str, bytes]) -> dict[str, bytes | None]:
        try:
            return await self._database.write(partial(merge_rows, rows=rows))
        except ValueError:
            if len(rows) == 1:
                self._refuse(rows)
                return {}
        merged: dict[str, bytes | None] = {}
        for name, row in rows.items():
            merged |= await self._merged({name: row})
        return merged

    def _refuse(self, names: Iterable[str]) -> None:
        """A row of a newer Forebay, perhaps: it is left as it is, here and in Redis."""
        self._refused.update(names)
        log.error("key_row_not_understood", row=next(iter(names))[:64])

    def _name(self, part: str = "") -> str:
        return self._link.name(f"rows:{part}" if part else "rows")
