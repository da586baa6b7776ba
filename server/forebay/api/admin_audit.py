"""`/admin/audit`: what administrators did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from forebay.api.admin_answers import AuditList, audit_object, list_object
from forebay.api.admin_keys import Limit
from forebay.api.answer import json_answer
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.tenants.audit import list_audit
from forebay.tenants.authority import Administrator

router = APIRouter(prefix="/admin/audit", tags=["audit"])


@router.get("", responses={200: {"model": AuditList}})
async def list_all(
    caller: AdminCaller,
    services: ServicesDep,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Limit = 100,
) -> Response:
    """The newest first, of all tenants or of an admin's own; the next page is that before the last row's `seq`."""
    tenant = Administrator.of(caller).tenant
    rows = await services.database.read(lambda file: list_audit(file, tenant=tenant, before=before, limit=limit + 1))
    return json_answer(list_object([audit_object(row) for row in rows], limit))
