"""An app behind the server's own protocol, in the test's process and on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from forebay.http_protocol import protocol_factory
from forebay.observe.record import RequestRecord


class _Server(uvicorn.Server):
    """uvicorn's, leaving the signals to pytest."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def listening(
    app: Any, records: list[RequestRecord], *, max_header_bytes: int, head_timeout_s: float, **options: Any
) -> AsyncIterator[tuple[str, int]]:
    """Its address. `records` gets what the protocol tells of its refusals, `options` are uvicorn's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        factory: Any = protocol_factory(max_header_bytes, records.append, head_timeout_s)
        server = _Server(uvicorn.Config(app, http=factory, ws="none", log_config=None, **options))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()
        server.should_exit = True
        await serving
