"""The admin API's app: a listener of its own, so that it need not be where the service is reached."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from forebay import __version__
from forebay.api import admin_audit, admin_cache, admin_cache_labels, admin_keys, admin_tenants, admin_usage
from forebay.api.admin_schemas import ADMIN_BODIES
from forebay.api.answer import json_answer
from forebay.api.deps import may
from forebay.api.handlers import install_handlers
from forebay.api.openapi import describe_app
from forebay.middleware import ErrorMiddleware, RequestMiddleware
from forebay.services import Services
from forebay.settings import Settings

ROUTERS = (
    admin_keys.router,
    admin_tenants.router,
    admin_audit.router,
    admin_usage.router,
    admin_cache.router,
    admin_cache_labels.router,
)


def create_admin_app(settings: Settings, services: Services) -> FastAPI:
    """On the services of a running `create_app`. Every route asks for a key, also where the service itself does not."""
    app = FastAPI(
        title="Forebay administration",
        version=__version__,
        description="Keys, tenants and what administrators did.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.services = services
    app.openapi = lambda: describe_app(app, ADMIN_BODIES)  # type: ignore[method-assign]  # FastAPI's documented way
    install_handlers(app)
    for router in ROUTERS:
        app.include_router(router)

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(may("admin"))])
    async def openapi(request: Request) -> Response:
        return json_answer(request.app.openapi())

    app.add_middleware(ErrorMiddleware, services=services)
    app.add_middleware(RequestMiddleware, services=services)
    return app
