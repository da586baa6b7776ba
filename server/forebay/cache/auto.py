"""The cache as the settings say."""

from __future__ import annotations

from pathlib import Path

from forebay.cache.entries import Seal
from forebay.cache.lookup import Cache
from forebay.cache.policy import CacheRules
from forebay.cache.scope import ScopeKeys
from forebay.cache.sharing import read_groups
from forebay.cache.stores.auto import build_cache_store
from forebay.settings import Settings


def build_cache(settings: Settings, folder: Path, secret: bytes) -> Cache:
    """Opens nothing yet. Raises ConfigurationError."""
    return Cache(
        build_cache_store(settings, folder),
        ScopeKeys(secret, epoch=settings.cache_epoch, groups=read_groups(settings.cache_sharing)),
        CacheRules(settings.cache, settings.cache_default),
        Seal(secret, max_bytes=settings.cache_max_entry_kib << 10),
        ttl_s=settings.cache_ttl_s,
    )
