"""Limits, budgets and keys as the settings ask for them: this server's own, or shared with others through Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from forebay.settings import Settings
from forebay.stores.database import Database
from forebay.tenants.directory import Directory
from forebay.tenants.guard import Guard
from forebay.tenants.key_watch import KeyWatch
from forebay.tenants.local_limiter import LocalLimiter

if TYPE_CHECKING:
    from forebay.tenants.key_sync import KeySync


@dataclass(frozen=True, slots=True)
class Sharing:
    """`begin` once the ledger's sums were seeded and the file's keys were read."""

    guard: Guard
    key_sync: KeySync | None

    def begin(self) -> None:
        self.guard.begin()
        if self.key_sync is not None:
            self.key_sync.begin()

    async def close(self) -> None:
        if self.key_sync is not None:
            await self.key_sync.close()
        await self.guard.close()

    async def families(self) -> list[Metric]:
        """For /metrics."""
        return self.guard.families() + ([] if self.key_sync is None else self.key_sync.families())


def build_sharing(settings: Settings, database: Database, directory: Directory, watch: KeyWatch) -> Sharing:
    """Connects to nothing yet. Raises ConfigurationError for a Redis that cannot be used."""
    if settings.redis_url is None:
        return Sharing(Guard(LocalLimiter(_steady_ms), wall_ms=_wall_ms, steady_ms=_steady_ms), None)
    from forebay.stores.redis_impl.link import RedisLink
    from forebay.tenants.conversation import Conversation
    from forebay.tenants.fleet import Fleet
    from forebay.tenants.grants import Grants
    from forebay.tenants.key_sync import KeySync
    from forebay.tenants.shared_limiter import SharedLimiter

    link = RedisLink(settings.redis_url.get_secret_value(), settings.redis_prefix, settings.redis_timeout_s)
    fleet, grants = Fleet(database, settings.replicas), Grants(settings.budget_tranche)
    conversation = Conversation(link, fleet, grants, wall_ms=_wall_ms)
    guard = Guard(
        SharedLimiter(conversation, wall_ms=_wall_ms, steady_ms=_steady_ms), wall_ms=_wall_ms, steady_ms=_steady_ms
    )
    return Sharing(guard, KeySync(link, conversation, database, directory, watch))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000
