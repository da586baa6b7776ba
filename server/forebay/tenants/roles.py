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

OWNERS_TO_GIVE: frozenset[Scope] = frozenset({"metrics"})
"""Sums over all tenants: an admin has it only where an owner has given it to his key."""

ROLES: tuple[Role, ...] = ("service", "member", "admin", "owner")
"""Each holds what those before it hold."""


def scopes_for(role: Role, chosen: Collection[Scope]) -> frozenset[Scope]:
    """What a key of this role may use: what was chosen of what the role allows, or all that comes with the role where
    nothing was."""
    allowed = SCOPES_OF[role]
    if chosen:
        return allowed.intersection(chosen)
    return allowed if role == "owner" else allowed - OWNERS_TO_GIVE
