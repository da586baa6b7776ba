"""Where answers are kept, as the settings say: in a file, or in Redis, with memory in front."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

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
    searches = settings.cache == "semantic"
    in_memory = Quotas(settings.cache_memory_mib * MIB, settings.cache_memory_mib * MIB)
    stored = Quotas(settings.cache_max_mib * MIB, settings.cache_tenant_mib * MIB)
    address = settings.cache_redis_url or settings.redis_url
    index = _index() if searches else None
    if address is None:
        # The file's index has everything, so that the memory tier needs none.
        lasting: CacheStore = SqliteStore(
            folder, stored, now_ms, index=index, index_bytes=settings.cache_index_mib * MIB
        )
        return TieredStore(MemoryStore(in_memory, now_ms), lasting)
    from forebay.cache.stores.redis_impl.store import RedisStore
    from forebay.stores.redis_impl.link import RedisLink

    link = RedisLink(address.get_secret_value(), settings.redis_prefix, settings.redis_timeout_s)
    return TieredStore(MemoryStore(in_memory, now_ms, index=index), RedisStore(link, stored, now_ms, searches=searches))


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _index() -> Index:
    try:
        from forebay.cache.index import Index
    except ImportError as exc:
        raise ConfigurationError("FOREBAY_CACHE=semantic needs numpy: install forebay[semantic].") from exc
    return Index()
