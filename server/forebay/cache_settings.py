"""Settings of the cache of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from forebay.setting_types import Names

CacheTier = Literal["off", "exact", "semantic"]


class CacheSettings(BaseSettings):
    """A part of `Settings`, which alone is read from the environment."""

    cache: CacheTier = Field(
        "off",
        description="The most that any request gets: `exact` answers the very same request again, `semantic` also one "
        "that means the same.",
    )
    cache_default: CacheTier | None = Field(
        None, description="What keys get whose `cache_policy` is `default`; unset: as `FOREBAY_CACHE`."
    )
    cache_sharing: Names = Field(
        (),
        description="Tenants that share answers, `group=tenant+tenant`, comma-separated; unset: none does.",
    )
    cache_max_error_rate: float = Field(
        0.01, gt=0, le=0.5, description="Largest share of wrong answers among the semantic tier's hits."
    )
    cache_error_rates: Names = Field(
        (), description="The same of single tenants or sharing groups, `name=0.05`, comma-separated."
    )
    cache_shadow_rate: float = Field(
        0.02,
        gt=0,
        le=1,
        description="Share of the semantic tier's hits that is generated again to learn whether they were right; ten "
        "times as many while errors seem to rise.",
    )
    cache_epoch: int = Field(
        0, ge=0, description="Raise it to leave everything unread that was cached before: a new corpus, new weights."
    )
    cache_ttl_s: float = Field(
        86_400.0, ge=1, description="How long an answer is kept, less up to a tenth of it by chance."
    )
    cache_memory_mib: int = Field(64, ge=1, description="Answers held in memory, in front of those that are stored.")
    cache_index_mib: int = Field(
        128, ge=1, description="Embeddings held in memory to search among the stored answers; 2 KiB each."
    )
    cache_max_mib: int = Field(1024, ge=1, description="Largest sum of the stored answers.")
    cache_tenant_mib: int = Field(
        256, ge=0, description="Largest sum of one tenant's stored answers; the least recently used give way."
    )
    cache_max_entry_kib: int = Field(256, ge=1, description="Largest answer that is stored.")
    cache_verification: bool = Field(
        True,
        description="Whether `semantic` may ask the served model where it is in doubt, once the model has passed a "
        "check set at start.",
    )
    cache_cost_rule: bool = Field(
        True, description="Whether `semantic` leaves out look-ups for a while where they cost more than hits save."
    )
    cache_redis_url: SecretStr | None = Field(
        None,
        description="Redis 8 that holds the cache instead of a file, so that servers with the same `FOREBAY_SECRET` "
        "share it; unset: `FOREBAY_REDIS_URL`.",
    )
