"""Who may do what to whose keys: nobody grants what he does not hold (CVE-2026-47101, CVE-2026-47102)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.errors import PermissionDenied
from forebay.tenants.audit import Via
from forebay.tenants.keys import Key, KeyFields
from forebay.tenants.roles import EVERYTHING, ROLES, scopes_for
from forebay.types import Budget, Caller, Policy, Role, Scope

LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrency", "queue_share")


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who acts, and what he holds. `tenant` None: an owner, who is one of every tenant."""

    name: str
    via: Via
    role: Role
    tenant: str | None
    scopes: frozenset[Scope] = EVERYTHING
    models: frozenset[str] | None = None
    gateway: bool = True

    @classmethod
    def of(cls, caller: Caller) -> Administrator:
        """Behind a key or a token with the scope `admin`, which only admins and owners have."""
        is_owner = caller.role == "owner"
        return cls(
            caller.key_id,
            "api",
            caller.role,
            None if is_owner else caller.tenant,
            caller.scopes,
            caller.models,
            caller.gateway or is_owner,
        )

    @classmethod
    def at_console(cls, user: str) -> Administrator:
        """Whoever may write to the data file, from the command line."""
        return cls(f"os:{user}", "cli", "owner", None)

    def can_see(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant

    def check_tenant(self, tenant: str) -> None:
        """Raises `PermissionDenied`, as all below."""
        if not self.can_see(tenant):
            raise PermissionDenied("Your key administers its own tenant only.", param="tenant")

    def check_owner(self) -> None:
        if self.role != "owner":
            raise PermissionDenied("Only an owner sets a tenant's limits.")

    def check_over(self, key: Key) -> None:
        """He may change or end keys of those who do not stand above him."""
        if ROLES.index(key.fields.role) > ROLES.index(self.role):
            raise PermissionDenied("Only an owner may do this to the key of an owner.")

    def check_grant(self, fields: KeyFields, tenant_policy: Policy) -> None:
        """He may give a key these fields, in a tenant of these limits."""
        if ROLES.index(fields.role) > ROLES.index(self.role):
            raise PermissionDenied(f"Your key is no {fields.role}'s: it cannot make one.", param="role")
        if beyond := scopes_for(fields.role, fields.scopes) - self.scopes:
            raise PermissionDenied(f"Your key does not hold the scopes {_listed(beyond)}.", param="scopes")
        if self.models is not None and (fields.models is None or not self.models.issuperset(fields.models)):
            raise PermissionDenied(f"Your key may use {_listed(self.models)} only: name them.", param="models")
        if fields.gateway and not self.gateway:
            raise PermissionDenied("Your key is no gateway's.", param="gateway")
        if self.role != "owner":
            _check_within(fields.policy, tenant_policy)


def _check_within(policy: Policy, tenant_policy: Policy) -> None:
    """A limit that is not set is the tenant's, which holds for all its keys together."""
    for name in LIMITS:
        asked, most = getattr(policy, name), getattr(tenant_policy, name)
        if asked is not None and most is not None and asked > most:
            raise PermissionDenied(f"The tenant's own limit is {most}.", param=name)
    for budget in policy.budgets:
        most = _most(budget, tenant_policy.budgets)
        if most is not None and budget.amount > most:
            raise PermissionDenied(f"The tenant's own budget of a {budget.window} is {most}.", param="budgets")


def _most(budget: Budget, budgets: Iterable[Budget]) -> int | None:
    """Soft ones bound nothing."""
    bounds = (other for other in budgets if other.hard and (other.unit, other.window) == (budget.unit, budget.window))
    return min((bound.amount for bound in bounds), default=None)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
