"""Entries in Redis 8, which several servers share: a hash each, and a vector set a scope."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from forebay.cache.entries import Sealed
from forebay.cache.stores.base import CacheUnavailable, Held, Neighbour, Purge, Quotas
from forebay.stores.redis_impl.link import RedisLink, RedisUnavailable, Script

PREFIX = "cache:"
MAX_SWEPT = 10_000
SEARCHED = 100
"""Of a vector set, at each step of a search: more finds more surely, and takes longer."""

CHUNK = 200
"""As in the script."""

_NOT_OURS = Sealed("", "", "", "", 0, 0, 2**62, None, b"")
"""In place of a hash that nobody could read: its seal does not hold."""


class RedisStore:
    """What it does is one script, so that nobody sees half of it. Servers find each other's entries where they have the
    same secret: keys and signatures are made with it."""

    def __init__(self, link: RedisLink, quotas: Quotas, now_ms: Callable[[], int], *, searches: bool = True) -> None:
        """`now_ms`: Unix milliseconds. `searches`: it needs vector sets. Connects to nothing yet."""
        self._link = link
        self._quotas = quotas
        self._now_ms = now_ms
        self._searches = searches
        self._heard: int | None = None
        self._began = b""
        self._num_losses = 0
        self._script = Script((Path(__file__).parent / "store.lua").read_text(encoding="utf-8"))

    def lacks(self, entry_id: str) -> bool:
        return False  # another server may have stored it

    async def get(self, entry_id: str) -> Sealed | None:
        return self._alive(await self._do("get", entry_id))

    async def add(self, *entries: Sealed) -> None:
        for entry in entries:
            await self._add(entry)

    async def _add(self, entry: Sealed) -> None:
        quotas = self._quotas
        if entry.num_bytes > min(quotas.tenant_bytes, quotas.max_bytes):
            return
        embedding = entry.embedding if self._searches else None
        vectors = "" if embedding is None else _vectors(entry.scope, embedding)
        await self._do(
            *("add", entry.id, self._now_ms(), entry.num_bytes, quotas.tenant_bytes, quotas.max_bytes, vectors),
            *(entry.scope, entry.tenant, entry.model, entry.epoch, entry.created_at, entry.expires_at),
            *(embedding or b"", entry.body),
        )
        if embedding is not None:
            await self._call("VADD", self._link.name(PREFIX + vectors), "FP32", embedding, entry.id, "CAS")
            await self._do("added", vectors, entry.expires_at)

    async def nearest(self, scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        """Its own order is rough, as vectors are shortened there: these are measured again."""
        from forebay.cache.index import cosine

        vectors = _vectors(scope, embedding)
        ids = await self._call("VSIM", self._link.name(PREFIX + vectors), "FP32", embedding, "COUNT", k, "EF", SEARCHED)
        rows = await self._do("read", vectors, *ids) if ids else []
        found = [entry for row in rows if (entry := self._alive(row))]
        near = [Neighbour(cosine(embedding, entry.embedding or b""), entry) for entry in found]
        return sorted(near, key=lambda one: -one.cosine)

    async def touch(self, entry_id: str) -> None:
        await self._do("touch", entry_id, self._now_ms())

    async def delete(self, entry_id: str) -> bool:
        return bool(await self._do("delete", entry_id, orjson.dumps(Purge(entry_id))))

    async def purge(self, *, tenant: str | None = None, model: str | None = None, epoch: int | None = None) -> int:
        num_gone = 0
        await self._do("tell", orjson.dumps(Purge(None, tenant, model, epoch)))
        for name in await self._do("tenants") if tenant is None else [tenant]:
            cursor: bytes | int = 0
            while True:
                cursor, num = await self._do("purge", name, cursor, model or "", "" if epoch is None else epoch)
                num_gone += num
                if int(cursor) == 0:
                    break
        return num_gone

    async def held(self) -> Mapping[str, Held]:
        return {tenant.decode(): Held(num, num_bytes) for tenant, num, num_bytes in await self._do("held")}

    async def sweep(self) -> int:
        """Redis lets go of entries by itself; this cleans its lists."""
        num_gone = 0
        while num_gone < MAX_SWEPT:
            num: int = await self._do("sweep", self._now_ms())
            num_gone += num
            if num < CHUNK:
                break
        return num_gone

    def num_losses(self) -> int:
        return self._num_losses

    async def purges(self) -> Sequence[Purge]:
        """Those that were told of so long ago that nobody knows them any more are taken for everything."""
        heard, known = self._heard, self._began
        last, told, began = await self._do("told", "" if heard is None else heard, known)
        missed = heard is not None and len(told) < last - (heard if began == known else 0)
        self._num_losses += known not in (b"", began)
        self._heard, self._began = last, began
        return [Purge()] if missed else [Purge(**orjson.loads(one)) for one in told]

    async def ping(self, *, writes: bool = False) -> None:
        if not await self._do("ping", int(writes)) and self._searches:
            raise CacheUnavailable("it has no vector sets: Redis 8 is needed")

    async def close(self) -> None:
        await self._link.close()

    async def _do(self, act: str, *arguments: bytes | str | int) -> Any:
        with _errors():
            return await self._link.run(self._script, PREFIX, act, *arguments)

    async def _call(self, *command: bytes | str | int) -> Any:
        with _errors():
            return await self._link.call(*command)

    def _alive(self, row: Sequence[bytes] | None) -> Sealed | None:
        entry = None if row is None else _sealed(*row)
        return None if entry is None or entry.expires_at <= self._now_ms() else entry


def _vectors(scope: str, embedding: bytes) -> str:
    """The name of a scope's vector set. Embedders whose vectors differ in length have one each."""
    return f"v:{scope}:{len(embedding) // 4}"


def _sealed(entry_id: bytes, *fields: bytes) -> Sealed:
    scope, tenant, model, epoch, created_at, expires_at, embedding, body = fields
    try:
        return Sealed(
            entry_id.decode(),
            scope.decode(),
            tenant.decode(),
            model.decode(),
            int(epoch),
            int(created_at),
            int(expires_at),
            embedding or None,
            body,
        )
    except (ValueError, AttributeError):
        return _NOT_OURS


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except RedisUnavailable as exc:
        raise CacheUnavailable(exc.reason) from exc
