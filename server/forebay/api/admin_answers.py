"""Keys, tenants and audit rows as the admin API and the command line show them. Times are Unix seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from forebay.api.admin_schemas import BudgetBody, LimitsBody
from forebay.api.answer_schemas import AnswerBody
from forebay.tenants.audit import Act, AuditRow, Via
from forebay.tenants.keys import Key, Tenant
from forebay.types import CachePolicy, Policy, Priority, Role, Scope

Status = Literal["active", "expired", "revoked"]


class SecretObject(AnswerBody):
    """`ends_at`: when one that was replaced stops working."""

    last_four: str
    created_at: int
    ends_at: int | None


class KeyObject(AnswerBody):
    """`key` is the whole key, in the answer that makes it and never again; `hint` is what is recognised of it."""

    object: Literal["key"]
    id: str
    hint: str
    tenant: str
    status: Status
    name: str
    role: Role
    scopes: list[Scope]
    models: list[str] | None
    limits: LimitsBody
    priority: Priority
    cache_policy: CachePolicy
    cache_any_temperature: bool
    strict: bool | None
    gateway: bool
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    secrets: list[SecretObject]
    key: str | None = None


class KeyList(AnswerBody):
    object: Literal["list"]
    data: list[KeyObject]
    has_more: bool


class TenantObject(AnswerBody):
    object: Literal["tenant"]
    name: str
    limits: LimitsBody


class TenantList(AnswerBody):
    object: Literal["list"]
    data: list[TenantObject]
    has_more: bool


class AuditObject(AnswerBody):
    """`actor` is a key's id, or `os:` and a user of the system."""

    object: Literal["audit_row"]
    seq: int
    at: int
    actor: str
    via: Via
    act: Act
    tenant: str
    target: str
    details: dict[str, Any]


class AuditList(AnswerBody):
    object: Literal["list"]
    data: list[AuditObject]
    has_more: bool


def key_object(key: Key, secret: str | None = None) -> dict[str, Any]:
    fields = key.fields
    shown = {
        "object": "key",
        "id": key.id,
        "hint": key.hint,
        "tenant": key.tenant,
        "status": status_of(key),
        "name": fields.name,
        "role": fields.role,
        "scopes": fields.scopes,
        "models": fields.models,
        "limits": limits_object(fields.policy),
        "priority": fields.priority,
        "cache_policy": fields.cache_policy,
        "cache_any_temperature": fields.cache_any_temperature,
        "strict": fields.strict,
        "gateway": fields.gateway,
        "created_at": key.created_at // 1000,
        "expires_at": _seconds(fields.expires_at),
        "revoked_at": _seconds(key.revoked_at),
        "secrets": [
            {"last_four": each.last_four, "created_at": each.created_at // 1000, "ends_at": _seconds(each.ends_at)}
            for each in key.secrets
        ],
    }
    return shown if secret is None else {**shown, "key": secret}


def status_of(key: Key) -> Status:
    if key.revoked_at is not None:
        return "revoked"
    expires_at = key.fields.expires_at
    return "active" if expires_at is None or expires_at / 1000 > time.time() else "expired"


def limits_object(policy: Policy) -> dict[str, Any]:
    budgets = [{name: getattr(budget, name) for name in BudgetBody.model_fields} for budget in policy.budgets]
    return {**{name: getattr(policy, name) for name in LimitsBody.model_fields}, "budgets": budgets}


def tenant_object(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", "name": tenant.name, "limits": limits_object(tenant.policy)}


def audit_object(row: AuditRow) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in AuditObject.model_fields if name != "object"}
    return {"object": "audit_row", **shown, "at": row.at // 1000}


def list_object(data: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of what was asked for with one more than `limit`."""
    return {"object": "list", "data": data[:limit], "has_more": len(data) > limit}


def _seconds(at: int | None) -> int | None:
    return None if at is None else at // 1000
