"""`/admin/tenants`: the limits and budgets of a tenant, which hold for all its keys together."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from forebay.api.admin_answers import TenantList, TenantObject, list_object, tenant_object
from forebay.api.admin_keys import After, Limit, act
from forebay.api.admin_schemas import TenantBody
from forebay.api.answer import json_answer
from forebay.api.body import json_body
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.api.openapi import documented
from forebay.errors import NotFound
from forebay.tenants.administration import set_tenant
from forebay.tenants.authority import Administrator
from forebay.tenants.key_store import get_tenant, list_tenants
from forebay.tenants.keys import UNLIMITED

router = APIRouter(prefix="/admin/tenants", tags=["tenants"])


@router.get("", responses={200: {"model": TenantList}})
async def list_all(caller: AdminCaller, services: ServicesDep, after: After = "", limit: Limit = 100) -> Response:
    """All that have a key or limits, by name, the next page being that after the last one's; for an admin his own."""
    own = Administrator.of(caller).tenant
    if own is None:
        tenants = await services.database.read(lambda file: list_tenants(file, after=after, limit=limit + 1))
    else:
        tenants = (await services.database.read(lambda file: get_tenant(file, own)),)
    return json_answer(list_object([tenant_object(tenant) for tenant in tenants], limit))


@router.get("/{name}", responses={200: {"model": TenantObject}})
async def retrieve(name: str, caller: AdminCaller, services: ServicesDep) -> Response:
    """One tenant; without limits where none were set."""
    if not Administrator.of(caller).can_see(name):
        raise NotFound(f"There is no tenant `{name[:64]}`.")
    return json_answer(tenant_object(await services.database.read(lambda file: get_tenant(file, name))))


@router.put("/{name}", **documented(TenantBody, TenantObject, "The tenant as it is now."))
async def put(
    name: str,
    body: Annotated[TenantBody, Depends(json_body(TenantBody, "admin"))],
    caller: AdminCaller,
    services: ServicesDep,
) -> Response:
    """Replaces a tenant's limits. Owners only."""
    admin, policy = Administrator.of(caller), replace(UNLIMITED, **body.limits.changes())
    return json_answer(tenant_object(await act(services, caller, lambda file: set_tenant(file, admin, name, policy))))
