"""The guard that the settings ask for: counting alone, or together with others through Redis."""

from __future__ import annotations

import time

from forebay.settings import Settings
from forebay.stores.database import Database
from forebay.tenants.guard import Guard
from forebay.tenants.local_limiter import LocalLimiter


def build_guard(settings: Settings, database: Database) -> Guard:
    """Connects to nothing yet. Raises ConfigurationError for a Redis that cannot be used."""
    if settings.redis_url is None:
        return Guard(LocalLimiter(_steady_ms), wall_ms=_wall_ms, steady_ms=_steady_ms)
    from forebay.stores.redis_impl.link import RedisLink
    from forebay.tenants.conversation import Conversation
    from forebay.tenants.fleet import Fleet
    from forebay.tenants.grants import Grants
    from forebay.tenants.shared_limiter import SharedLimiter

    link = RedisLink(settings.redis_url.get_secret_value(), settings.redis_prefix, settings.redis_timeout_s)
    conversation = Conversation(
        link, Fleet(database, settings.replicas), Grants(settings.budget_tranche), wall_ms=_wall_ms
    )
    return Guard(SharedLimiter(conversation, _steady_ms), wall_ms=_wall_ms, steady_ms=_steady_ms)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000
