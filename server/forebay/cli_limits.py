"""Limits and budgets on the command line: as flags, and as one line of text."""

from __future__ import annotations

import argparse
from decimal import Decimal
from typing import Any

from forebay.types import Budget, Policy

MICROS = 1_000_000
MAX_DIGITS = 18
WINDOWS = ("day", "week", "month", "total")
LIMITS = {
    "rpm": ("requests_per_minute", int, "requests a minute"),
    "tpm": ("tokens_per_minute", int, "tokens a minute"),
    "concurrency": ("max_concurrency", int, "requests at a time"),
    "queue-share": ("queue_share", float, "part of the waiting places, above 0 to 1"),
}


def add_limits(command: argparse.ArgumentParser) -> None:
    for flag, (_, kind, meaning) in LIMITS.items():
        command.add_argument(f"--{flag}", type=kind, help=meaning)
    command.add_argument(
        "--budget",
        action="append",
        default=[],
        type=_budget,
        metavar="AMOUNT/WINDOW[/soft]",
        help="25.50/month in money, 1000000tokens/day in tokens; windows day, week, month, total; several may be given",
    )


def limits_in(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, flag.replace("-", "_")) for flag, (name, _, _) in LIMITS.items()}
    return {**{name: value for name, value in given.items() if value is not None}, "budgets": args.budget}


def _budget(text: str) -> dict[str, Any]:
    amount, _, rest = text.partition("/")
    window, _, soft = rest.partition("/")
    if window not in WINDOWS:
        raise argparse.ArgumentTypeError(f"the window is one of {', '.join(WINDOWS)}, as in 25.50/month")
    if soft not in ("", "soft"):
        raise argparse.ArgumentTypeError(f"{soft!r} is not `soft`")
    number = amount.removesuffix("tokens")
    try:
        value = Decimal(number) * (1 if number != amount else MICROS)
    except ArithmeticError as exc:
        raise argparse.ArgumentTypeError(f"{amount!r} is no amount") from exc
    if not value.is_finite() or value.adjusted() > MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"{amount!r} is no amount")
    if value != value.to_integral_value():
        raise argparse.ArgumentTypeError(f"{amount!r} has too many decimals")
    unit = "tokens" if number != amount else "money"
    return {"amount": int(value), "unit": unit, "window": window, "hard": not soft}


def limits_text(policy: Policy) -> str:
    known = [
        f"{flag} {value:g}" for flag, (name, _, _) in LIMITS.items() if (value := getattr(policy, name)) is not None
    ]
    return ", ".join([*known, *map(_budget_text, policy.budgets)]) or "no limits of its own"


def _budget_text(budget: Budget) -> str:
    amount = f"{budget.amount}tokens" if budget.unit == "tokens" else f"{Decimal(budget.amount) / MICROS:f}"
    return f"{amount}/{budget.window}{'' if budget.hard else '/soft'}"
