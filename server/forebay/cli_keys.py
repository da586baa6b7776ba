"""`forebay keys create | list | rotate | revoke`: on the data file, beside a server or without one."""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import UTC, datetime
from typing import get_args

from forebay.api.admin_answers import key_object, status_of
from forebay.api.admin_schemas import MAX_GRACE_S, NewKey
from forebay.cli_data import administer, data_file, print_json, print_table
from forebay.cli_limits import add_limits, limits_in, limits_text
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from forebay.tenants.administration import create_key, revoke_key, rotate_key
from forebay.tenants.key_store import list_keys
from forebay.tenants.keys import Key
from forebay.types import CachePolicy, Priority, Role, Scope

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_key_commands(keys: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and the settings and returns the exit code."""
    commands = keys.add_subparsers(required=True, metavar="{create,list,rotate,revoke}")
    create = commands.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--tenant", default="default", help="whose it is, default `default`")
    create.add_argument("--name", help="what it is for")
    create.add_argument("--role", choices=get_args(Role), help="default member")
    create.add_argument("--scopes", type=_listed, help=f"comma-separated, of {', '.join(get_args(Scope))}")
    create.add_argument("--models", type=_listed, help="comma-separated; default all")
    create.add_argument("--priority", choices=get_args(Priority), help="default interactive")
    create.add_argument("--cache", choices=get_args(CachePolicy), dest="cache_policy", help="default `default`")
    create.add_argument(
        "--cache-any-temperature", action="store_true", default=None, help="stored answers at any temperature, too"
    )
    create.add_argument(
        "--strict", action=argparse.BooleanOptionalAction, dest="key_strict", help="refuse unknown request fields"
    )
    create.add_argument("--gateway", action="store_true", default=None, help="may name users in the trusted header")
    create.add_argument("--expires", type=_seconds, metavar="DURATION", help="90d, 12h, 30m; default never")
    add_limits(create)
    create.set_defaults(run=_create)
    listing = commands.add_parser("list", help="show keys, never their secrets")
    listing.add_argument("--tenant", help="of this tenant only")
    listing.set_defaults(run=_list)
    rotate = commands.add_parser("rotate", help="make a new secret for a key and print it, this once")
    rotate.add_argument("id")
    rotate.add_argument(
        "--grace", type=_seconds, default=86_400, metavar="DURATION", help="the older one's, default 1d"
    )
    rotate.set_defaults(run=_rotate)
    revoke = commands.add_parser("revoke", help="end a key for good")
    revoke.add_argument("id")
    revoke.set_defaults(run=_revoke)
    for command in (create, listing, rotate, revoke):
        command.add_argument("--json", action="store_true", help="one JSON object, or a list of them")


def _create(args: argparse.Namespace, settings: Settings) -> int:
    given = (
        "tenant",
        "name",
        "role",
        "scopes",
        "models",
        "priority",
        "cache_policy",
        "cache_any_temperature",
        "gateway",
    )
    asked = {name: value for name in given if (value := getattr(args, name)) is not None}
    if args.key_strict is not None:
        asked["strict"] = args.key_strict
    if args.expires is not None:
        asked["expires_at"] = int(time.time()) + args.expires
    body = NewKey.model_validate({**asked, "limits": limits_in(args)})
    key, secret = administer(settings, lambda file, admin: create_key(file, admin, body.tenant, body.changes()))
    _show_secret(args, key, secret)
    return 0


def _list(args: argparse.Namespace, settings: Settings) -> int:
    with data_file(settings) as file:
        keys = list_keys(file, tenant=args.tenant)
    if args.json:
        print_json([key_object(key) for key in keys])
        return 0
    heads = ("id", "tenant", "name", "role", "status", "expires", "last four", "limits")
    rows = [
        (
            key.id,
            key.tenant,
            key.fields.name,
            key.fields.role,
            status_of(key),
            _date(key.fields.expires_at),
            key.secrets[0].last_four,
            limits_text(key.fields.policy),
        )
        for key in keys
    ]
    print_table([heads, *rows])
    return 0


def _rotate(args: argparse.Namespace, settings: Settings) -> int:
    if args.grace > MAX_GRACE_S:
        raise ConfigurationError(f"--grace is at most {MAX_GRACE_S // 86_400}d.")
    key, secret = administer(settings, lambda file, admin: rotate_key(file, admin, args.id, args.grace * 1000))
    _show_secret(args, key, secret)
    return 0


def _revoke(args: argparse.Namespace, settings: Settings) -> int:
    key = administer(settings, lambda file, admin: revoke_key(file, admin, args.id))
    if args.json:
        print_json(key_object(key))
    else:
        print(f"Key {key.id} of tenant {key.tenant} is revoked.")
    return 0


def _show_secret(args: argparse.Namespace, key: Key, secret: str) -> None:
    """Alone on standard output, so that a script may catch it; what is said of it goes to standard error."""
    if args.json:
        print_json(key_object(key, secret))
        return
    said = f"Key {key.id} of tenant {key.tenant}, {key.fields.role}. It is shown this once:"
    print(said, file=sys.stderr, flush=True)
    print(secret)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None and text != "0":
        raise argparse.ArgumentTypeError("a number and s, m, h or d, as 90d")
    return 0 if found is None else int(found[1]) * UNITS_S[found[2]]


def _listed(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


def _date(at: int | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
