"""The process: binds, serves, drains, and ends with an exit code that says why."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import structlog
import uvicorn
from fastapi import FastAPI

from forebay.admin_app import create_admin_app
from forebay.app import create_app
from forebay.errors import ConfigurationError
from forebay.http_protocol import protocol_factory
from forebay.observe.logs import configure_logging
from forebay.overdue import Overdue
from forebay.services import Services, build_services
from forebay.settings import Settings, unknown_variables
from forebay.sockets import base_url, bind_admin_socket, bind_socket

EXIT_STOPPED = 0
EXIT_CONFIGURATION = 2
EXIT_ENGINE_LOST = 70
"""EX_SOFTWARE of sysexits.h."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IGNORED_HANGUP = (signal.SIGHUP, signal.SIG_IGN)
TICK_S = 0.1
TICKS_A_SECOND = 10
GC_THRESHOLD = 20_000
KEEP_ALIVE_S = 65
"""Idle connections outlive the 60 s of common load balancers, so that none is closed under a request."""
GRACE_S = 1.0
"""What requests that were told to end have to say so to their clients."""
CLOSE_S = 12.0
HURRY_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Given to `announce` once requests are answered: when the engine is ready, or at once where it loads lazily."""

    url: str
    admin_url: str | None
    services: Services


Announce = Callable[[Listening], None]


def run(settings: Settings, announce: Announce) -> int:
    """Serve until told to stop. Call it on the main thread.

    Returns the exit code: 0 after a stop, 70 when the engine is lost. Raises ConfigurationError for settings that
    cannot be served, also where that comes out when the engine loads.
    """
    configure_logging(settings)
    for name in unknown_variables():
        _log.warning("unknown_variable", name=name)
    with contextlib.ExitStack() as sockets:
        sock = sockets.enter_context(contextlib.closing(bind_socket(settings)))
        admin_sock = bind_admin_socket(settings)
        if admin_sock is not None:
            sockets.callback(admin_sock.close)
        services = build_services(settings)
        services.ledger.open_file()
        choice = services.choice
        for reason in choice.reasons:
            log = _log.warning if reason in choice.warnings else _log.info
            log("engine_choice", engine=choice.engine, device=choice.device, reason=reason)
        admin = None if admin_sock is None else AdminServer(create_admin_app(settings, services), services, admin_sock)
        server = Server(create_app(settings, services), services, sock, admin, announce)
        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[sock]))
        finally:
            server.overdue.cancel()
        if services.host.misconfigured:
            raise ConfigurationError(services.drain.fatal)
        return server.exit_code


def _config(app: FastAPI, services: Services, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    settings = services.settings
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], protocol_factory(settings.max_header_bytes, services.observe)),
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the middleware believes them
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(GRACE_S),
    )


class _Ticking(uvicorn.Server):
    """uvicorn looks ten times a second whether it is to end; this one notices at once, and looks at its clock once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._over = asyncio.Event()

    def finish(self) -> None:
        self.should_exit = True
        self._over.set()

    async def main_loop(self) -> None:
        tick = 0
        while not await self.on_tick(tick):
            await self._pause(TICKS_A_SECOND * TICK_S)
            tick += TICKS_A_SECOND

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


class AdminServer(_Ticking):
    """The admin API's listener on the same loop. It heeds no signal: it begins and ends with the service."""

    def __init__(self, app: FastAPI, services: Services, sock: socket.socket) -> None:
        super().__init__(_config(app, services, "off"))
        self.url = base_url(sock)
        self._sock = sock
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def begin(self) -> None:
        self._task = asyncio.create_task(self.serve([self._sock]), name="admin")

    async def end(self) -> None:
        self.finish()
        if self._task is not None:
            await self._task


class Server(_Ticking):
    """uvicorn's server with another end: a signal drains while the socket stays open, a second one hurries.

    sse-starlette ends its streams as soon as it finds a uvicorn server behind the SIGTERM handler that is about to
    exit. Here the handler is the loop's, and `should_exit` comes after the last stream, so it finds none.
    """

    def __init__(
        self, app: FastAPI, services: Services, sock: socket.socket, admin: AdminServer | None, announce: Announce
    ) -> None:
        super().__init__(_config(app, services, "on"))
        self._services = services
        self._admin = admin
        self._drain = services.drain
        self._url = base_url(sock)
        self._announce = announce
        self._end: asyncio.Task[None] | None = None
        self.overdue = Overdue(lambda: self.exit_code)

    @property
    def exit_code(self) -> int:
        if self._drain.fatal is None:
            return EXIT_STOPPED
        return EXIT_CONFIGURATION if self._services.host.misconfigured else EXIT_ENGINE_LOST

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # Under nohup the end of the terminal is to be ignored.
        heeded = [number for number in STOP_SIGNALS if (number, signal.getsignal(number)) != IGNORED_HANGUP]
        for number in heeded:
            loop.add_signal_handler(number, self._on_stop)
        try:
            yield
        finally:
            for number in heeded:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._admin is not None and not self.should_exit:
            self._admin.begin()
        self._end = asyncio.create_task(self._end_when_told(), name="drain")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._admin is not None:
            await self._admin.end()
        await super().shutdown(sockets)

    async def main_loop(self) -> None:
        """uvicorn's clock, which also measures how late it runs and says when requests are answered."""
        loop = asyncio.get_running_loop()
        gc.set_threshold(GC_THRESHOLD)
        ready = False
        tick = 0
        while not await self.on_tick(tick):
            if not ready and (ready := self._is_ready()):
                self._settle()
            if tick % TICKS_A_SECOND == 0:
                self._services.tick()
            due = loop.time() + TICK_S
            await self._pause(TICK_S)
            self._services.metrics.loop_lag(max(0.0, loop.time() - due))
            tick += 1

    def _is_ready(self) -> bool:
        return self._services.settings.lazy_load or self._services.host.state == "ready"

    def _settle(self) -> None:
        """What was loaded stays: the collector need not look at it again."""
        gc.collect()
        gc.freeze()
        admin_url = None if self._admin is None else self._admin.url
        _log.info("listening", url=self._url, admin_url=admin_url, pid=os.getpid())
        self._announce(Listening(self._url, admin_url, self._services))

    def _on_stop(self) -> None:
        if not self._drain.draining:
            self._drain.begin()
        else:
            _log.warning("stop_hurried", in_flight=self._drain.in_flight)
            self._drain.force()
            self.overdue.start(HURRY_S)

    async def _end_when_told(self) -> None:
        await self._drain.wait_begun()
        timeout_s = self._services.settings.drain_timeout_s
        _log.info("draining", in_flight=self._drain.in_flight, timeout_s=timeout_s)
        complete = await self._drain.finish(timeout_s, GRACE_S)
        _log.info("drained", complete=complete, in_flight=self._drain.in_flight)
        self.overdue.start(HURRY_S if self._drain.forced else GRACE_S + CLOSE_S)
        self.finish()
