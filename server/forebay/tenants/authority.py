"""Who may do what to whose keys: nobody grants what he does not hold (CVE-2026-47101, CVE-2026-47102)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.errors import PermissionDenied
from forebay.tenants.audit import Via
from forebay.tenants.keys import UNLIMITED, Key, KeyFields
from forebay.tenants.roles import EVERYTHING, OWNERS_TO_GIVE, ROLES, scopes_for
from forebay.types import Budget, Caller, Policy, Priority, Role, Scope

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
    policy: Policy = UNLIMITED
    priority: Priority = "interactive"
    expires_at: int | None = None

    @classmethod
    def of(cls, caller: Caller) -> Administrator:
        """Behind a key or a token with the scope `admin`, which only admins and owners have."""
        is_owner = caller.role == "owner"
        return cls(
            caller.key_id,
            "api",
            caller.role,
            None if is_owner else caller.tenant,
            caller.scopes if is_owner else caller.scopes - OWNERS_TO_GIVE,
            caller.models,
            caller.gateway or is_owner,
            caller.key_policy,
            caller.priority,
            caller.expires_at,
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
            self._check_own(fields)

    def _check_own(self, fields: KeyFields) -> None:
        """What bounds his own key, its end included, bounds each that he gives: he could use it in place of his own."""
        if self.expires_at is not None and (fields.expires_at is None or fields.expires_at > self.expires_at):
            raise PermissionDenied(
                f"Your own key ends: name an `expires_at` of at most {self.expires_at // 1000}.", param="expires_at"
            )
        if self.priority == "batch" and fields.priority != "batch":
            raise PermissionDenied("Your own key's priority is `batch`.", param="priority")
        for name in LIMITS:
            asked, most = getattr(fields.policy, name), getattr(self.policy, name)
            if most is not None and (asked is None or asked > most):
                raise PermissionDenied(f"Your own key's limit is {most}: name one.", param=name)
        for own in self.policy.budgets:
            asked = _most(own, fields.policy.budgets)
            if own.hard and (asked is None or asked > own.amount):
                raise PermissionDenied(
                    f"Your own key's budget of a {own.window} is {own.amount} {own.unit}: name one.", param="budgets"
                )


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
