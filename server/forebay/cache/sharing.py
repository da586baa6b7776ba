"""Which tenants share answers."""

from __future__ import annotations

from collections.abc import Iterable

from forebay.errors import ConfigurationError
from forebay.tenants.keys import TENANT_NAME


def read_groups(given: Iterable[str]) -> dict[str, str]:
    """The group of each tenant that is in one, from `group=tenant+tenant`. Raises ConfigurationError."""
    groups: dict[str, str] = {}
    names: set[str] = set()
    for item in given:
        group, equals, members = item.partition("=")
        tenants = [name.strip() for name in members.split("+")]
        group = group.strip()
        if not equals or not all(TENANT_NAME.fullmatch(name) for name in (group, *tenants)):
            raise ConfigurationError(f"FOREBAY_CACHE_SHARING: {item!r} is not of the form group=tenant+tenant.")
        if group in names:
            raise ConfigurationError(f"FOREBAY_CACHE_SHARING names the group {group!r} twice.")
        names.add(group)
        for tenant in tenants:
            if groups.setdefault(tenant, group) != group:
                raise ConfigurationError(f"FOREBAY_CACHE_SHARING puts the tenant {tenant!r} into two groups.")
    return groups
