"""What is kept of keys and tenants, and how it is written in the data file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from forebay.tenants.key_format import PREFIX
from forebay.types import Budget, CachePolicy, Policy, Priority, Role, Scope

UNLIMITED = Policy()
DEFAULT_TENANT = "default"
PERSON = "jwt:"
"""What the key id of a bearer of tokens begins with; it names issuer and subject."""
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyFields:
    """What may be changed of a key. `scopes` empty: all that the role allows. `models` None: all.

    `strict` None: as the server is set. `expires_at` is in Unix milliseconds.
    """

    name: str = ""
    role: Role = "member"
    scopes: tuple[Scope, ...] = ()
    models: tuple[str, ...] | None = None
    policy: Policy = UNLIMITED
    priority: Priority = "interactive"
    cache_policy: CachePolicy = "default"
    cache_any_temperature: bool = False
    strict: bool | None = None
    gateway: bool = False
    expires_at: int | None = None

    def with_changes(self, changes: Mapping[str, Any]) -> KeyFields:
        """`changes`: some of these fields, and in `policy` some of those of `Policy`."""
        policy = replace(self.policy, **changes.get("policy", {}))
        return replace(self, **{**changes, "policy": policy})

    def to_json(self) -> str:
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_json(cls, text: str) -> KeyFields:
        known: dict[str, Any] = orjson.loads(text)
        models = known["models"]
        return cls(
            **{
                **known,
                "scopes": tuple(known["scopes"]),
                "models": None if models is None else tuple(models),
                "policy": _policy(known["policy"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """One of the secrets of a key, as its SHA-256 digest. `ends_at` (Unix ms): when it was replaced for good."""

    digest: bytes
    last_four: str
    created_at: int
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its secrets, the newest first. Times are Unix milliseconds; `updated_at` grows with each change."""

    id: str
    tenant: str
    fields: KeyFields
    secrets: tuple[Secret, ...]
    created_at: int
    updated_at: int
    revoked_at: int | None = None

    @property
    def hint(self) -> str:
        """What its holder recognises it by: the beginning and the last four characters."""
        return f"{PREFIX}{self.id}-...{self.secrets[0].last_four}"


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    policy: Policy = UNLIMITED
    updated_at: int = 0


def policy_to_json(policy: Policy) -> str:
    return orjson.dumps(policy, option=orjson.OPT_SORT_KEYS).decode()


def policy_from_json(text: str) -> Policy:
    return _policy(orjson.loads(text))


def _policy(known: dict[str, Any]) -> Policy:
    return Policy(**{**known, "budgets": tuple(Budget(**budget) for budget in known["budgets"])})
