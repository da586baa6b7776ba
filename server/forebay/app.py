"""Built parts -> ASGI app: lifespan, middleware, handlers, routers. Importing this has no effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from forebay import __version__
from forebay.api import chat, completions, docs, generate, models, ops, tokens, usage
from forebay.api.deps import get_scraper
from forebay.api.direct import DirectRoute
from forebay.api.handlers import install_handlers
from forebay.api.openapi import BODIES, describe_app
from forebay.api.openapi_rules import refine
from forebay.middleware import ErrorMiddleware, RequestMiddleware
from forebay.services import Services, build_services
from forebay.settings import Settings
from forebay.tenants.limit_headers import LIMIT_HEADERS

EXPOSED_HEADERS = (
    *("x-request-id", "x-ignored-params", "retry-after", "idempotent-replayed"),
    *("x-cache", "x-cache-id", "x-cache-reason", "x-cache-tier", "x-cache-similarity", "x-cache-score", "age"),
)


class Service(FastAPI):
    """A FastAPI app whose middleware is around all of Starlette's own, and direct routes inside ours alone."""

    front: ASGIApp
    services: Services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        if self.root_path:
            scope["root_path"] = self.root_path
        await self.front(scope, receive, send)

    async def behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI itself."""
        await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Without the outermost one, which would answer failures in Starlette's words before `ErrorMiddleware` does."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app


def create_app(settings: Settings, services: Services | None = None) -> Service:
    """The service as an app; `services` are built from the settings unless given. Raises ConfigurationError."""
    services = services or build_services(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.begin()
        try:
            yield
        finally:
            await services.close()

    app = Service(
        title="Forebay",
        version=__version__,
        description="An OpenAI-compatible service in front of a language model.",
        lifespan=lifespan,
        root_path=settings.root_path,
        redirect_slashes=False,  # a redirect would repeat a forged Host
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.services = app.state.services = services
    rules = partial(refine, settings=settings)
    app.openapi = lambda: describe_app(app, BODIES, rules)  # type: ignore[method-assign]  # FastAPI's documented way
    install_handlers(app)
    for module in (chat, completions, models, tokens, generate, usage):
        app.include_router(module.router)
    app.include_router(docs.router)
    app.include_router(ops.probes)
    app.include_router(ops.metrics, dependencies=[Depends(get_scraper)])
    app.include_router(ops.ops)
    direct = {("POST", route.path): route for route in app.routes if isinstance(route, DirectRoute)}
    app.front = ErrorMiddleware(app.behind, services, direct)
    if settings.cors_origins:
        app.front = CORSMiddleware(
            app.front,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=[*EXPOSED_HEADERS, *LIMIT_HEADERS],
        )
    app.front = RequestMiddleware(app.front, services)
    return app
