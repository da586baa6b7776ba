"""Where answers are kept, as the settings say: in a file, or in Redis, with memory in front."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from forebay.cache.stores.base import CacheStore, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.sqlite_impl import SqliteStore
from forebay.cache.stores.tiered import TieredStore
from forebay.errors import ConfigurationError
from forebay.settings import Settings

if TYPE_CHECKING:
    from forebay.cache.index import Index

MIB = 1 << 20


def build_cache_store(settings: Settings, folder: Path) -> TieredStore:
    """Opens and connects to nothing yet. Raises ConfigurationError for a Redis that cannot be used, and without numpy
    where the semantic tier needs it."""
    in_memory = Quotas(settings.cache_memory_mib * MIB, settings.cache_memory_mib * MIB)
    index = fresh = None
    if settings.cache == "semantic":
        # The file's index has everything, so that with a file the memory tier needs none. What memory has lies in its
        # index whole, and is bounded with it.
        index, fresh = _index(None if _address(settings) else settings.cache_index_mib * MIB), _index()
    memory = MemoryStore(in_memory, now_ms, index=index if _address(settings) else None)
    return TieredStore(memory, build_lasting_store(settings, folder, index), fresh, index)


def build_lasting_store(settings: Settings, folder: Path, index: Index | None = None) -> CacheStore:
    """What lies behind memory: for the command line, too, which searches nothing."""
    stored = Quotas(settings.cache_max_mib * MIB, settings.cache_tenant_mib * MIB)
    address = _address(settings)
    if address is None:
        return SqliteStore(folder, stored, now_ms, index=index)
    from forebay.cache.stores.redis_impl.store import RedisStore
    from forebay.stores.redis_impl.link import RedisLink

    link = RedisLink(address.get_secret_value(), settings.redis_prefix, settings.redis_timeout_s)
    return RedisStore(link, stored, now_ms, searches=index is not None)


def _address(settings: Settings) -> SecretStr | None:
    return settings.cache_redis_url or settings.redis_url


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _index(max_bytes: int | None = None) -> Index:
    try:
        from forebay.cache.index import Index
    except ImportError as exc:
        raise ConfigurationError("FOREBAY_CACHE=semantic needs numpy: install forebay[semantic].") from exc
    return Index(max_bytes)
