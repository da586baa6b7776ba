"""`forebay replicas list | forget`: the servers that share limits and budgets through Redis."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

from forebay.cli_data import administer, print_json, print_table
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from forebay.stores.redis_impl.link import RedisLink, RedisUnavailable
from forebay.tenants.audit import write_audit
from forebay.tenants.replicas import forget_replica, list_replicas

T = TypeVar("T")


def add_replica_commands(replicas: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and the settings and returns the exit code."""
    commands = replicas.add_subparsers(required=True, metavar="{list,forget}")
    listing = commands.add_parser("list", help="show which servers Redis knows, and when it heard of them")
    listing.add_argument("--json", action="store_true", help="one JSON list")
    listing.set_defaults(run=_list)
    forget = commands.add_parser("forget", help="no longer wait for a server that will not come back")
    forget.add_argument("id")
    forget.set_defaults(run=_forget)


def _list(args: argparse.Namespace, settings: Settings) -> int:
    replicas = _ask(settings, list_replicas)
    if args.json:
        print_json([asdict(replica) for replica in replicas])
        return 0
    lines = [
        (
            replica.id,
            "before a wipe" if replica.heard_ms is None else f"{replica.heard_ms / 1000:.1f} s ago",
            "yes" if replica.seeded else "no",
        )
        for replica in replicas
    ]
    print_table([("replica", "last heard", "has said what it holds"), *lines])
    return 0


def _forget(args: argparse.Namespace, settings: Settings) -> int:
    _ask(settings, lambda link: forget_replica(link, args.id))
    administer(
        settings, lambda file, admin: write_audit(file, admin.name, admin.via, "replica.forget", "", args.id, {})
    )
    print(f"Replica {args.id} is forgotten.")
    return 0


def _ask(settings: Settings, question: Callable[[RedisLink], Awaitable[T]]) -> T:
    if settings.redis_url is None:
        raise ConfigurationError("Set FOREBAY_REDIS_URL.")
    link = RedisLink(settings.redis_url.get_secret_value(), settings.redis_prefix, max(2.0, settings.redis_timeout_s))

    async def ask() -> T:
        try:
            return await question(link)
        except RedisUnavailable as exc:
            raise ConfigurationError(f"Redis does not answer: {exc.reason}.") from exc
        finally:
            await link.close()

    return asyncio.run(ask())
