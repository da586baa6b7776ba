"""`forebay cache status | purge | ...`: on the store of answers, beside a server or without one."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from forebay.cli_cache_labels import add_label_commands, show_standings, standings
from forebay.cli_data import administer, print_json, print_table
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from forebay.tenants.audit import Act, write_audit

if TYPE_CHECKING:
    from forebay.cache.stores.base import CacheStore

T = TypeVar("T")


def add_cache_commands(cache: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and the settings and returns the exit code."""
    commands = cache.add_subparsers(required=True, metavar="{status,purge,explain,export,import,forget}")
    status = commands.add_parser("status", help="show how much is stored, and what labels have shown, by tenant")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run=_status)
    purge = commands.add_parser("purge", help="remove answers; a server that runs has forgotten them within a second")
    purge.add_argument("--id", help="the one with this x-cache-id")
    purge.add_argument("--tenant", help="those of this tenant")
    purge.add_argument("--model", dest="of_model", metavar="MODEL", help="those of this model")
    purge.add_argument("--epoch", type=int, help="those of epochs before this one")
    purge.add_argument("--all", action="store_true", help="all there are")
    purge.set_defaults(run=_purge)
    add_label_commands(commands)


def _status(args: argparse.Namespace, settings: Settings) -> int:
    held = _ask(settings, lambda store: store.held())
    if args.json:
        stored = [
            {"tenant": name, "num_entries": one.num_entries, "num_bytes": one.num_bytes}
            for name, one in sorted(held.items())
        ]
        print_json({"tenants": stored, "standings": standings(settings)})
        return 0
    rows = [(name, str(one.num_entries), f"{one.num_bytes / (1 << 20):.1f}") for name, one in sorted(held.items())]
    print_table([("tenant", "answers", "MiB"), *rows])
    show_standings(settings)
    return 0


def _purge(args: argparse.Namespace, settings: Settings) -> int:
    named: dict[str, Any] = {"tenant": args.tenant, "model": args.of_model, "epoch": args.epoch}
    has_names = any(value is not None for value in named.values())
    if (args.id is not None) + has_names + args.all != 1:
        raise ConfigurationError("Say what is to go: --id, or --tenant, --model and --epoch, or --all.")
    act: Act
    if args.id is not None:
        num_removed = int(_ask(settings, lambda store: store.delete(args.id)))
        act, target = "cache.delete", args.id
    else:
        num_removed = _ask(settings, lambda store: store.purge(**named))
        act, target = "cache.purge", args.tenant or ""
    details = {"model": args.of_model, "epoch": args.epoch, "num_removed": num_removed}
    administer(
        settings, lambda file, admin: write_audit(file, admin.name, admin.via, act, args.tenant or "", target, details)
    )
    print(f"{num_removed} answers removed.")
    return 0


def _ask(settings: Settings, question: Callable[[CacheStore], Awaitable[T]]) -> T:
    from forebay.cache.stores.auto import build_lasting_store
    from forebay.cache.stores.base import CacheUnavailable

    async def ask() -> T:
        store = build_lasting_store(settings, settings.data_root)
        try:
            return await question(store)
        except CacheUnavailable as exc:
            raise ConfigurationError(f"The store of answers does not answer: {exc.reason}.") from exc
        finally:
            await store.close()

    return asyncio.run(ask())
