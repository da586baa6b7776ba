"""`/admin/cache`: what is stored, and its removal. An owner has all tenants' answers, an admin his tenant's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends
from starlette.responses import Response

from forebay.api.admin_schemas import CachePurge
from forebay.api.answer import json_answer
from forebay.api.answer_schemas import AnswerBody
from forebay.api.body import json_body
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.api.openapi import documented
from forebay.errors import NotFound, StorageUnavailable
from forebay.services import Services
from forebay.tenants.audit import Act, write_audit
from forebay.tenants.authority import Administrator

if TYPE_CHECKING:
    from forebay.cache.lookup import Cache
    from forebay.cache.semantic import SemanticTier
    from forebay.engines.base import EngineInfo

router = APIRouter(prefix="/admin/cache", tags=["cache"])


class TenantsAnswers(AnswerBody):
    tenant: str
    num_entries: int
    num_bytes: int


class SemanticStatus(AnswerBody):
    """`state` `off`: looking up does not pay for now. `source`: what labels must have been made with to count.
    `hit_rate`: of recent look-ups, observed hits included."""

    state: Literal["loading", "on", "off", "failed"]
    source: str | None
    hit_rate: float
    break_even: float


class LabelStanding(AnswerBody):
    """What labels have shown of an owner's hits, a tenant's or those of `group:NAME`: see docs/cache-guarantee.md.

    `why` `of another source`: made with another decision, embedder, model or epoch; nothing is served by them."""

    owner: str
    source: str
    serving: bool
    why: str
    max_error_rate: float
    threshold: float | None
    error_rate: float
    error_upper95: float
    served_upper95: float
    num_hits: int
    hit_rate: float
    labels: dict[str, int]
    labels_in_force: float
    clean_labels_needed: int
    num_alarms: int
    cuts: list[dict[str, float]]


class CacheStatus(AnswerBody):
    """`cache`: the most that the server offers. `store`: whether what lies behind memory answers, and takes writes.
    `tenants`: null while it does not answer. `verification`: what the check set has shown of the served model, by what
    it is asked."""

    object: Literal["cache.status"]
    cache: Literal["off", "exact", "semantic"]
    epoch: int
    store: dict[str, bool] | None = None
    verification: dict[str, dict[str, Any]] | None = None
    tenants: list[TenantsAnswers] | None
    semantic: SemanticStatus | None = None
    standings: list[LabelStanding] | None = None


class CacheRemoval(AnswerBody):
    object: Literal["cache.removal"]
    num_removed: int


@router.get("", responses={200: {"model": CacheStatus}})
async def status(caller: AdminCaller, services: ServicesDep) -> Response:
    """How much is stored, by tenant; what is known without the store, while that does not answer."""
    settings, cache = services.settings, services.cache
    shown: dict[str, Any] = {"object": "cache.status", "cache": settings.cache, "epoch": settings.cache_epoch}
    if cache is None:
        return json_answer({**shown, "tenants": []})
    admin = Administrator.of(caller)
    tenants = await _tenants(cache, admin)
    store = {"reads": tenants is not None, "writes": not cache.store.writes.is_open}
    shown |= {"store": store, "tenants": tenants}
    if cache.semantic is not None:
        own = None if admin.tenant is None else cache.keys.owner_of(admin.tenant)
        shown |= _semantic(cache.semantic, services.host.info, own)
    if services.verification is not None:
        shown["verification"] = services.verification.summary()
    return json_answer(shown)


async def _tenants(cache: Cache, admin: Administrator) -> list[dict[str, Any]] | None:
    """None where the store does not answer."""
    from forebay.cache.stores.base import CacheUnavailable

    try:
        held = await cache.store.held()
    except CacheUnavailable:
        return None
    return [
        {"tenant": tenant, "num_entries": one.num_entries, "num_bytes": one.num_bytes}
        for tenant, one in sorted(held.items())
        if admin.can_see(tenant)
    ]


def _semantic(tier: SemanticTier, info: EngineInfo | None, own: str | None) -> dict[str, Any]:
    """With the standing of all owners, or of one."""
    from forebay.cache.groups import check_state

    source, standings = None if info is None else tier.source(info), []
    for owner, state in tier.labels.states():
        if own is None or owner == own:
            assurance = check_state(state, tier.labels.aims_of(owner))
            told = assurance.standing().as_dict()
            if assurance.source != source:
                told |= {"serving": False, "why": "of another source", "threshold": None}
            standings.append({"owner": owner, "source": assurance.source, **told})
    semantic = {
        "state": tier.state,
        "source": source,
        "hit_rate": round(tier.costs.hit_rate, 4),
        "break_even": round(tier.costs.break_even, 4),
    }
    return {"semantic": semantic, "standings": standings}


@router.delete("/{entry_id}", responses={200: {"model": CacheRemoval}})
async def delete(entry_id: str, caller: AdminCaller, services: ServicesDep) -> Response:
    """One answer, by the `x-cache-id` that came with it."""
    cache, admin = _cache(services), Administrator.of(caller)
    services.acts.check(caller)
    with _unavailable():
        entry = await cache.store.look(entry_id)
    if entry is None or not admin.can_see(entry.tenant):
        raise NotFound("There is no stored answer with this id.")
    with _unavailable():
        await cache.store.delete(entry_id)
    await _audit(services, admin, "cache.delete", entry.tenant, entry_id, {})
    return _removed(1)


@router.post("/purge", **documented(CachePurge, CacheRemoval, "How many answers went."))
async def purge(
    body: Annotated[CachePurge, Depends(json_body(CachePurge, "admin"))], caller: AdminCaller, services: ServicesDep
) -> Response:
    """All answers of a tenant, of a model, of earlier epochs, or, for an owner, all there are."""
    cache, admin = _cache(services), Administrator.of(caller)
    services.acts.check(caller)
    tenant = body.tenant or admin.tenant
    if tenant is not None:
        admin.check_tenant(tenant)
    with _unavailable():
        num_removed = await cache.store.purge(tenant=tenant, model=body.model, epoch=body.epoch)
    details = {"model": body.model, "epoch": body.epoch, "num_removed": num_removed}
    await _audit(services, admin, "cache.purge", tenant or "", tenant or "", details)
    return _removed(num_removed)


def _cache(services: Services) -> Cache:
    if services.cache is None:
        raise NotFound("This server stores no answers.")
    return services.cache


@contextmanager
def _unavailable() -> Iterator[None]:
    """A store that gives no answer, as an error of the API. What was to go has left memory already."""
    from forebay.cache.stores.base import CacheUnavailable

    try:
        yield
    except CacheUnavailable as exc:
        raise StorageUnavailable("The store of answers does not answer right now.") from exc


async def _audit(
    services: Services, admin: Administrator, act: Act, tenant: str, target: str, details: dict[str, Any]
) -> None:
    def write(file: Connection) -> None:
        write_audit(file, admin.name, admin.via, act, tenant, target, details)

    await services.database.write(write)


def _removed(num: int) -> Response:
    return json_answer({"object": "cache.removal", "num_removed": num})
