"""`forebay tenants set | list`: on the data file, beside a server or without one."""

from __future__ import annotations

import argparse
from dataclasses import replace

from forebay.api.admin_answers import tenant_object
from forebay.api.admin_schemas import LimitsBody
from forebay.cli_data import administer, data_file, print_json, print_table
from forebay.cli_limits import add_limits, limits_in, limits_text
from forebay.settings import Settings
from forebay.tenants.administration import set_tenant
from forebay.tenants.key_store import list_tenants
from forebay.tenants.keys import UNLIMITED


def add_tenant_commands(tenants: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and the settings and returns the exit code."""
    commands = tenants.add_subparsers(required=True, metavar="{set,list}")
    put = commands.add_parser("set", help="replace the limits that hold for all keys of a tenant together")
    put.add_argument("name")
    add_limits(put)
    put.set_defaults(run=_set)
    listing = commands.add_parser("list", help="show tenants and their limits")
    listing.set_defaults(run=_list)
    for command in (put, listing):
        command.add_argument("--json", action="store_true", help="one JSON object, or a list of them")


def _set(args: argparse.Namespace, settings: Settings) -> int:
    policy = replace(UNLIMITED, **LimitsBody.model_validate(limits_in(args)).changes())
    tenant = administer(settings, lambda file, admin: set_tenant(file, admin, args.name, policy))
    if args.json:
        print_json(tenant_object(tenant))
    else:
        print(f"Tenant {tenant.name}: {limits_text(tenant.policy)}.")
    return 0


def _list(args: argparse.Namespace, settings: Settings) -> int:
    with data_file(settings) as file:
        tenants = list_tenants(file)
    if args.json:
        print_json([tenant_object(tenant) for tenant in tenants])
    else:
        print_table([("tenant", "limits"), *((tenant.name, limits_text(tenant.policy)) for tenant in tenants)])
    return 0
