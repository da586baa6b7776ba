"""The cache as the settings say."""

from __future__ import annotations

from forebay.cache.entries import Seal
from forebay.cache.lookup import Cache
from forebay.cache.policy import CacheRules
from forebay.cache.scope import ScopeKeys
from forebay.cache.sharing import read_groups
from forebay.cache.stores.auto import build_cache_store
from forebay.settings import Settings
from forebay.stores.database import Database


def build_cache(settings: Settings, database: Database, secret: bytes) -> Cache:
    """Opens nothing yet. Raises ConfigurationError."""
    store = build_cache_store(settings, database.folder)
    seal = Seal(secret, max_bytes=settings.cache_max_entry_kib << 10)
    groups, rules = read_groups(settings.cache_sharing), CacheRules(settings.cache, settings.cache_default)
    if settings.cache != "semantic":
        return Cache(
            store, ScopeKeys(secret, epoch=settings.cache_epoch, groups=groups), rules, seal, ttl_s=settings.cache_ttl_s
        )
    from forebay.cache.semantic_auto import build_labelling, build_semantic_tier

    semantic = build_semantic_tier(settings, database, store, seal)
    keys = ScopeKeys(secret, epoch=settings.cache_epoch, groups=groups, embedder=semantic.calibration.embedder)
    return Cache(
        store, keys, rules, seal, ttl_s=settings.cache_ttl_s, semantic=semantic, labelling=build_labelling(semantic)
    )
