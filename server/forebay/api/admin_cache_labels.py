"""`/admin/cache/explain`, `/admin/cache/labels`: why two messages match or not, and what labels have shown so far."""

from __future__ import annotations

from sqlite3 import Connection
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends
from starlette.responses import Response

from forebay.api.admin_schemas import CacheLabels, CacheQuestion
from forebay.api.answer import json_answer
from forebay.api.answer_schemas import AnswerBody
from forebay.api.body import json_body
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.api.openapi import documented
from forebay.errors import EngineUnavailable, InvalidRequest, NotFound, PermissionDenied
from forebay.services import Services
from forebay.tenants.audit import Act, write_audit
from forebay.tenants.authority import Administrator

if TYPE_CHECKING:
    from forebay.cache.lookup import Cache
    from forebay.cache.semantic import SemanticTier

router = APIRouter(prefix="/admin/cache", tags=["cache"])


class CacheExplanation(AnswerBody):
    """`action`: what would be done with such a pair now. `score`: the lower end of the probability's interval, by which
    pairs are ranked. `threshold`: the least score that is served, null while nothing is. `contributions`: what each
    feature adds to the log-odds."""

    object: Literal["cache.explanation"]
    owner: str
    action: Literal["serve", "observe", "miss"]
    refused_by: dict[str, str] | None
    volatile: dict[str, str] | None
    probability: float
    score: float
    lower_bound: float
    threshold: float | None
    max_error_rate: float
    cosine: float
    match_forms: list[str]
    matches: list[list[str]]
    only_in_asked: list[str]
    only_in_stored: list[str]
    contributions: dict[str, float]


class CacheLabelState(AnswerBody):
    object: Literal["cache.labels"]
    owner: str
    state: dict[str, Any] | None


@router.post("/explain", **documented(CacheQuestion, CacheExplanation, "What speaks for and against a hit."))
async def explain(
    body: Annotated[CacheQuestion, Depends(json_body(CacheQuestion, "admin"))],
    caller: AdminCaller,
    services: ServicesDep,
) -> Response:
    """Whether the answer to one message may be given to another one, in the same conversation."""
    cache, tier = _tier(services)
    owner = body.owner or cache.keys.owner_of(caller.tenant)
    _check_sees(Administrator.of(caller), cache, owner)
    if not tier.is_ready:
        raise EngineUnavailable("The embedder is not loaded.", retry_after_s=1)
    found = await tier.explain(owner, body.asked, body.stored)
    known, info = tier.labels.known(owner), services.host.info
    counts = known is not None and info is not None and known.source == tier.source(info)
    told = found.as_dict(known.threshold if known is not None and counts else None, tier.labels.aims_of(owner))
    return json_answer({"object": "cache.explanation", "owner": owner, **told})


@router.get("/labels/{owner}", responses={200: {"model": CacheLabelState}})
async def export_labels(owner: str, caller: AdminCaller, services: ServicesDep) -> Response:
    """What labels have shown of a tenant's hits, or a group's, for another server or a later one."""
    cache, tier = _tier(services)
    _check_sees(Administrator.of(caller), cache, owner)
    state = tier.labels.state(owner)
    if state is None:
        raise NotFound("There are no labels of this owner.")
    return _state(owner, state)


@router.put("/labels/{owner}", **documented(CacheLabels, CacheLabelState, "The labels as they are now."))
async def import_labels(
    owner: str,
    body: Annotated[CacheLabels, Depends(json_body(CacheLabels, "admin"))],
    caller: AdminCaller,
    services: ServicesDep,
) -> Response:
    """In place of what is known. They count where decision, embedder and model are those that they were made with."""
    from forebay.cache.aims import is_owner
    from forebay.cache.groups import check_state
    from forebay.cache.label_rows import import_labels

    cache, tier = _tier(services)
    admin, state = Administrator.of(caller), body.state
    _check_sees(admin, cache, owner)
    if admin.tenant is not None and state is not None:
        # They decide how often answers may be wrong, which is the operator's to say.
        raise PermissionDenied("Only an owner imports labels.", param="state")
    if admin.tenant is not None and owner != admin.tenant:
        raise PermissionDenied("Only an owner forgets the labels of a group.", param="owner")
    if not is_owner(owner):
        raise InvalidRequest("That is no tenant's name, and no group:NAME.", param="owner")
    if state is not None:
        try:
            check_state(state, tier.labels.aims_of(owner))
        except ValueError as exc:
            raise InvalidRequest(f"`state`: {exc}.", param="state") from exc
    services.acts.check(caller)

    def write(file: Connection) -> None:
        import_labels(file, owner, state)
        act: Act = "cache.forget" if state is None else "cache.import"
        write_audit(file, admin.name, admin.via, act, owner, owner, {})

    await services.database.write(write)
    await tier.labels.hear()
    return _state(owner, state)


def _state(owner: str, state: Any) -> Response:
    return json_answer({"object": "cache.labels", "owner": owner, "state": state})


def _tier(services: Services) -> tuple[Cache, SemanticTier]:
    if services.cache is None or services.cache.semantic is None:
        raise NotFound("This server has no semantic cache.")
    return services.cache, services.cache.semantic


def _check_sees(admin: Administrator, cache: Cache, owner: str) -> None:
    """Raises `NotFound`, whether there is such an owner or not."""
    if admin.tenant is not None and owner != cache.keys.owner_of(admin.tenant):
        raise NotFound("There are no labels of this owner.")
