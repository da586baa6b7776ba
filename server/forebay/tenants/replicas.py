"""The replicas that Redis knows, for an operator: who they are, and that one of them will not come back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from forebay.errors import ConfigurationError
from forebay.stores.redis_impl.link import RedisLink
from forebay.tenants.fleet import ALIVE_MS


@dataclass(frozen=True, slots=True)
class Replica:
    """`heard_ms`: how long ago, None where that was before Redis was wiped. `seeded`: it has said what it holds."""

    id: str
    heard_ms: int | None
    seeded: bool

    @property
    def alive(self) -> bool:
        return self.heard_ms is not None and self.heard_ms < ALIVE_MS


async def list_replicas(link: RedisLink) -> list[Replica]:
    """By id. Raises `RedisUnavailable`."""
    run = (await link.call("INFO", "server"))["run_id"]
    known = await link.call("SMEMBERS", link.name("known"))
    seeded = await link.call("SMEMBERS", link.name(f"seeded:{run}"))
    seconds, micros = await link.call("TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    replicas = []
    for replica in sorted(known):
        beat = await link.call("HGET", link.name("beats"), replica)
        heard_ms = None if beat is None else max(0, now - int(beat))
        replicas.append(Replica(replica.decode(), heard_ms, replica in seeded))
    return replicas


async def forget_replica(link: RedisLink, replica_id: str) -> None:
    """What it has spent stays counted in the windows that Redis has; after the next wipe nobody waits for it.

    The others hear of it within a second, those that are away when they come back. Raises ConfigurationError for one
    that is not known or still alive, `RedisUnavailable`.
    """
    replica = next((replica for replica in await list_replicas(link) if replica.id == replica_id), None)
    if replica is None:
        raise ConfigurationError(f"There is no replica {replica_id!r}.")
    if replica.alive:
        raise ConfigurationError(f"The replica {replica_id} is alive: stop it first.")
    await link.call("HSET", link.name("forgotten"), replica_id, int(time.time()))
    await link.call("SREM", link.name("known"), replica_id)
    await link.call("HDEL", link.name("beats"), replica_id)
