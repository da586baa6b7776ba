"""An app in the test's own process, asked over ASGI: for engines made for a test, and for a request's record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI

from forebay.app import create_app
from forebay.engines.base import Engine
from forebay.observe.record import RequestRecord
from forebay.services import build_services
from forebay.settings import Settings


@dataclass(frozen=True, slots=True)
class Answer:
    """`record` is what the server knows of the request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    record: RequestRecord

    def json(self) -> Any:
        return json.loads(self.body)


class Inside:
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def post(
        self, path: str, body: Mapping[str, Any], *, left: asyncio.Event | None = None, body_after_s: float = 0
    ) -> Answer:
        """Asks, and hears the answer out. `left`: when the client leaves."""
        raw, stays = json.dumps(body).encode(), asyncio.Event()
        headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(raw))}
        scope: dict[str, Any] = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("test", 80), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        pending = [{"type": "http.request", "body": raw, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if pending:
                await asyncio.sleep(body_after_s)
                return pending.pop()
            await stays.wait()
            raise AssertionError("nobody sets it")

        async def send(message: Any) -> None:
            sent.append(message)

        async def leave() -> None:
            """As a connection of ours does."""
            await (left or stays).wait()
            scope["state"]["record"].patience.client_left()

        leaving = asyncio.ensure_future(leave())
        try:
            await self._app(scope, receive, send)
        finally:
            leaving.cancel()
        first, *rest = sent
        return Answer(
            first["status"],
            {name.decode(): value.decode() for name, value in first["headers"]},
            b"".join(message["body"] for message in rest),
            scope["state"]["record"],
        )


@asynccontextmanager
async def inside(build: Callable[[Settings], Engine], *, load: bool = True, **settings: Any) -> AsyncIterator[Inside]:
    """A running app on an engine of the test's own, loaded or to be loaded by the first request."""
    with TemporaryDirectory() as folder:
        made = Settings(_env_file=None, engine="scripted", lazy_load=True, data_dir=folder, **settings)
        services = build_services(made, lambda: build(made))
        app = create_app(made, services)
        async with app.router.lifespan_context(app):
            if load:
                await services.host.engine()
            yield Inside(app)
