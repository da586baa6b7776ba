"""Roles: which routes each may use, and which of them stands above which."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import get_args

from forebay.types import Role, Scope

MODELS: frozenset[Scope] = frozenset({"chat", "completions", "tokens", "models"})
EVERYTHING: frozenset[Scope] = frozenset(get_args(Scope))

SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    "service": MODELS,
    "member": MODELS | {"usage"},
    "admin": EVERYTHING,
    "owner": EVERYTHING,
}
"""An owner is one of every tenant, an admin of his own, a member sees what his own key used, a service nothing."""

ROLES: tuple[Role, ...] = ("service", "member", "admin", "owner")
"""Each holds what those before it hold."""


def scopes_for(role: Role, chosen: Collection[Scope]) -> frozenset[Scope]:
    """What a key of this role may use: what was chosen of what the role allows, or all of it where nothing was."""
    return SCOPES_OF[role].intersection(chosen) if chosen else SCOPES_OF[role]
