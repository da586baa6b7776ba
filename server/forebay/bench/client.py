"""A light client of an OpenAI-compatible server: connections that are kept, requests that are timed."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from forebay.bench.answer import Answer, UsageOnly
from forebay.bench.connection import Connection
from forebay.bench.outcome import Outcome
from forebay.errors import ConfigurationError

FETCH_TIMEOUT_S = 10.0
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, 5.6.2)."""
PATH = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `base_url` is that of the server, with or without the API's `/v1`."""

    base_url: str
    endpoint: str = "/v1/chat/completions"
    api_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    verify_tls: bool = True

    @property
    def is_chat(self) -> bool:
        return self.endpoint.endswith("/chat/completions")


class Client:
    """Requests to one target. An answer that failed is an outcome, never an exception."""

    def __init__(self, target: Target) -> None:
        """Raises ConfigurationError for a URL that is none or says more than where the server is, and for headers that
        cannot be sent."""
        try:
            parts = urlsplit(target.base_url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ConfigurationError(f"{target.base_url!r} is not a URL: {exc}.") from exc
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigurationError(f"{target.base_url!r} is not a URL such as http://127.0.0.1:8000.")
        if parts.query or parts.fragment or parts.username is not None or port == 0 or not PATH.fullmatch(parts.path):
            raise ConfigurationError(f"{target.base_url!r}: a URL of scheme, host, port and path is wanted, no more.")
        self.target = target
        self._host = host
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._ssl = None if parts.scheme == "http" else _tls(target.verify_tls)
        self._idle: list[Connection] = []
        self._netloc = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._head = self._head_of("POST", target.endpoint)

    async def open(self, number: int) -> None:
        """So many connections, before there is anything to ask. Raises ConfigurationError where none is taken."""
        try:
            async with asyncio.timeout(self.target.timeout_s):
                self._idle += await asyncio.gather(*[self._connect() for _ in range(number)])
        except OSError as exc:
            raise ConfigurationError(f"{self.target.base_url} takes no connection: {exc}.") from exc

    async def ask(
        self,
        body: Mapping[str, Any],
        *,
        keep_text: bool = False,
        usage_only: bool = False,
        leave_after_s: float | None = None,
    ) -> Outcome:
        """One request and what came of it. `usage_only`: see `UsageOnly`, streams alone. `leave_after_s`: the client
        closes the connection then, answered or not.
        """
        outcome = Outcome(start_s=time.perf_counter())
        answer = UsageOnly(outcome) if usage_only else Answer(outcome, keep_text)
        payload = orjson.dumps(body)
        limit_s = self.target.timeout_s if leave_after_s is None else leave_after_s
        try:
            async with asyncio.timeout(limit_s):
                await self._send(b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(payload), payload), answer)
        except TimeoutError:
            if leave_after_s is not None:
                outcome.left = True
            else:
                answer.fail("timeout", f"No whole answer within {limit_s:g} s.")
        except OSError as exc:
            answer.fail("refused", str(exc))
        if outcome.failure is not None or outcome.left:
            outcome.latency_s = time.perf_counter() - outcome.start_s
        return outcome

    async def fetch(self, endpoint: str) -> dict[str, Any]:
        """The JSON object that another route answers a GET with. Raises ConfigurationError where there is none."""
        answer = _Kept(Outcome(start_s=time.perf_counter()))
        where = self.target.base_url.rstrip("/").removesuffix("/v1") + endpoint
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                await self._send(self._head_of("GET", endpoint) + b"\r\n", answer)
            found = orjson.loads(answer.body)
        except (OSError, TimeoutError, ValueError) as exc:
            raise ConfigurationError(f"{where} does not answer: {exc or type(exc).__name__}.") from exc
        if answer.outcome.status != 200 or not isinstance(found, dict):
            raise ConfigurationError(f"{where} answers with status {answer.outcome.status}.")
        return found

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _send(self, message: bytes, answer: Answer) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and await connection.ask(message, answer):
                break
            answer.outcome.failure, answer.outcome.message = None, ""  # it was closed while idle: another one is asked
        else:
            connection = await self._connect()
            await connection.ask(message, answer)
        if connection.usable:
            self._idle.append(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._ssl)
        return connection

    def _head_of(self, method: str, endpoint: str) -> bytes:
        """The request's first lines, to which a length may be added."""
        own = {"Host": self._netloc, "Content-Type": "application/json", "User-Agent": "forebay-bench"}
        if self.target.api_key is not None:
            own["Authorization"] = f"Bearer {self.target.api_key}"
        given = {name.lower() for name in self.target.headers}
        lines = {name: value for name, value in own.items() if name.lower() not in given} | dict(self.target.headers)
        for name, value in lines.items():
            if not TOKEN.fullmatch(name) or name.lower() in ("content-length", "transfer-encoding"):
                raise ConfigurationError(f"{name!r} is no name of a header that can be given.")
            if not value.isprintable() or not value.isascii():
                raise ConfigurationError(f"The header {name} of the requests holds what no header may.")
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {self._path}{endpoint} HTTP/1.1\r\n{head}".encode("ascii")


class _Kept(Answer):
    """Any body, kept as it is."""

    __slots__ = ("body",)

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.body = b""

    def feed(self, data: bytes, now_s: float) -> None:
        self.body += data

    def end(self) -> None:
        """Nothing is expected of it."""


def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
