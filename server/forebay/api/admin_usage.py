"""`GET /admin/usage/reconcile`: the ledger beside the engine's own counters."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from forebay.api.answer import json_answer
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.errors import PermissionDenied
from forebay.ledger.reconcile import RowSums
from forebay.types import EngineWork

router = APIRouter(prefix="/admin/usage", tags=["usage"])


class Drift(BaseModel):
    """Tokens that the engine counted and the ledger has not; negative: the other way round."""

    prompt: int
    generated: int


class ReconciliationAnswer(BaseModel):
    """See `ledger/reconcile.py`."""

    object: str
    since: int
    engine: EngineWork
    settled: EngineWork
    in_flight: EngineWork
    left: EngineWork
    num_in_flight: int
    read_again: int
    left_unread: int
    billed: RowSums
    uncharged: RowSums
    hits: RowSums
    recovered: RowSums
    drift: Drift


@router.get("/reconcile", responses={200: {"model": ReconciliationAnswer}})
async def reconcile(caller: AdminCaller, services: ServicesDep) -> Response:
    """Since the process began: the engine's counters, its work, the ledger's rows, and what does not add up."""
    if caller.role != "owner":
        raise PermissionDenied("This is of all tenants together: it needs an owner's key.")
    found = await services.reconciliation.run()
    return json_answer({"object": "usage.reconciliation", "since": services.started_at, **asdict(found)})
