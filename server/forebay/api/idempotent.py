"""`Idempotency-Key`: a request that is repeated gets the first one's answer, as it was or as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from forebay.api.answer import send_answer
from forebay.api.body import KEY_HEADER, KEYED_BODY, LARGE_BYTES
from forebay.api.fields import ignored_header
from forebay.api.handlers import CLIENT_CLOSED_REQUEST, as_api_error, note_error
from forebay.api.sse import DONE, LAST_SEND_S
from forebay.errors import ApiError, InvalidRequest, PermissionDenied, error_body
from forebay.idempotency.answers import Kept
from forebay.idempotency.claims import Claim, fingerprint_of, key_digest
from forebay.idempotency.recording import Head, Reader
from forebay.observe.record import RequestRecord
from forebay.patience import ClientGone, Patience
from forebay.services import Services
from forebay.tenants.keys import PERSON
from forebay.types import Caller

Endpoint = Callable[..., Awaitable[bytes | Response]]

MAX_KEY_CHARS = 255
REPLAYED = (b"idempotent-replayed", b"true")


def idempotent(endpoint: Endpoint) -> Endpoint:
    """A route that heeds the header. Without one the endpoint is called as it is.

    With one it runs in a task of its own, for a client that stays while anybody wants the answer; what it sends is
    recorded, and every request with the key, the first included, reads along. Raises, beside what the endpoint raises,
    `InvalidRequest`, `IdempotencyConflict`, `AnswerNotStored`, `ClientGone`.
    """

    @wraps(endpoint)
    async def answer(
        request: Request, caller: Caller, services: Services, record: RequestRecord, **rest: Any
    ) -> bytes | Response:
        raw = request.scope["state"].pop(KEYED_BODY, None)
        if raw is None:
            return await endpoint(request=request, caller=caller, services=services, record=record, **rest)
        person = record.user or (caller.key_id if caller.key_id.startswith(PERSON) else None)
        key_id = key_digest(caller.tenant, person, record.route, _read_key(request))
        fingerprint = fingerprint_of(raw) if len(raw) < LARGE_BYTES else await asyncio.to_thread(fingerprint_of, raw)
        claims = services.claims
        claim = claims.find(key_id, fingerprint)
        if isinstance(claim, Kept):
            _check_model(caller, claim.model)
            head, body = await claims.answers.read(claim)
            record.replay_of, record.model = claim.request_id, claim.model
            return Replay(request, head, record, body)
        replayed = claim is not None
        if claim is None:
            own = replace(record, patience=Patience(services.drain, services.settings.request_timeout_s))
            record.told_elsewhere = True
            claim = claims.open(key_id, fingerprint, own)
            ask = partial(endpoint, caller=caller, services=services, record=own, **rest)
            claims.run(_Producer(claim, request, services).run(ask))
        reader = claim.join()
        try:
            with record.patience:
                head = await reader.head()
            _check_model(caller, claim.record.model)
        except BaseException:
            reader.close()
            raise
        if replayed:
            record.replay_of, record.model = claim.record.request_id, claim.record.model
        return Following(request, head, record, reader)

    return answer


def _read_key(request: Request) -> str:
    keys = request.headers.getlist(KEY_HEADER.decode())
    if len(keys) == 1 and 0 < len(keys[0]) <= MAX_KEY_CHARS and keys[0].isascii() and keys[0].isprintable():
        return keys[0]
    raise InvalidRequest(
        f"The header Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters, and there once.",
        param="Idempotency-Key",
    )


def _check_model(caller: Caller, model: str | None) -> None:
    """Another key of the tenant may have asked; its holder may use what this one may not."""
    if model is not None and not caller.can_use(model):
        raise PermissionDenied(f"Your key may not use the model `{model[:64]}`.", param="model")


class _Producer:
    """Stands between the endpoint and its readers as the client of both."""

    def __init__(self, claim: Claim, request: Request, services: Services) -> None:
        self._claim = claim
        self._services = services
        # Its client is whoever reads along, not the connection that the request came by.
        state = {**request.scope["state"], "record": claim.record}
        self._request = Request({**request.scope, "state": state}, request.receive)

    async def run(self, ask: Endpoint) -> None:
        claim, record = self._claim, self._claim.record
        try:
            await send_answer(await ask(request=self._request), self._request.scope, self._request.receive, self._send)
            await claim.keep()
        except ClientGone:
            record.outcome = "client_gone"
            record.status = record.status or CLIENT_CLOSED_REQUEST
        except Exception as exc:
            error = as_api_error(exc, record)
            note_error(record, error, started=record.status is not None)
            record.status = record.status or error.status
            claim.recording.fail(error)
        finally:
            claim.close()
            record.patience.close()
            record.ended = time.perf_counter()
            if record.status is None and record.outcome == "ok":
                record.outcome = "failed"
            self._services.observe(record)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._claim.record.status = message["status"]
            headers = [*message["headers"]]
            if ignored := self._request.scope["state"].get("ignored_params"):
                headers.append((b"x-ignored-params", ignored_header(ignored).encode("latin-1")))
            self._claim.recording.begin(Head(message["status"], tuple(headers)))
        elif (body := message.get("body", b"")).startswith(b":"):  # a keep-alive comment, at a frame's place
            self._claim.recording.remark(body)
        elif body:
            await self._claim.write(body)


class _Again(Response):
    """An answer whose head was recorded."""

    def __init__(self, request: Request, head: Head, record: RequestRecord) -> None:
        super().__init__(status_code=head.status)
        self.raw_headers = [*head.headers] if record.replay_of is None else [*head.headers, REPLAYED]
        record.stream = self.headers["content-type"].startswith("text/event-stream")
        request.scope["state"].pop("ignored_params", None)  # the recorded head lists them

    @property
    def start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}


class Replay(_Again):
    """One that was stored."""

    def __init__(self, request: Request, head: Head, record: RequestRecord, body: bytes) -> None:
        super().__init__(request, head, record)
        self._body = body
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._record.patience:
                await send(self.start)
                await send({"type": "http.response.body", "body": self._body})
        except ApiError as exc:
            note_error(self._record, exc, started=True)


class Following(_Again):
    """One that is being recorded: what there is already, then what comes."""

    def __init__(self, request: Request, head: Head, record: RequestRecord, reader: Reader) -> None:
        super().__init__(request, head, record)
        self._reader = reader
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        can_fail = False
        try:
            with self._record.patience:
                await send(self.start)
                can_fail = self._record.stream  # a whole answer is shown when nothing can fail any more
                async for piece in self._reader:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                can_fail = False
                await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            self._record.outcome = "client_gone"
        except ApiError as exc:
            note_error(self._record, exc, started=True)
            if can_fail:
                last = b"data: " + orjson.dumps(error_body(exc)) + b"\n\n" + DONE
                with suppress(TimeoutError):  # the client takes nothing any more
                    async with asyncio.timeout(LAST_SEND_S):
                        await send({"type": "http.response.body", "body": last})
        finally:
            self._reader.close()
