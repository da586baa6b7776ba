"""Deltas over Server-Sent Events (WHATWG HTML, section 9.2): frames, keep-alive comments, one error frame, `[DONE]`."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from forebay.api.frames import Frames
from forebay.api.handlers import as_api_error, note_error
from forebay.errors import ApiError, error_body
from forebay.generation import Generation
from forebay.observe.record import RequestRecord
from forebay.patience import ClientGone
from forebay.settings import Settings
from forebay.types import Delta

DONE = b"data: [DONE]\n\n"
LAST_SEND_S = 1.0
"""For the end of a stream that failed, where its client does not read; what it had is lost with the connection."""


async def stream(generation: Generation, frames: Frames, record: RequestRecord, settings: Settings) -> EventStream:
    """Starts the response at the first delta, so that errors before it keep their status; a client that waits longer
    than a keep-alive interval gets the headers and comments meanwhile, and errors as a frame."""
    assert record.stream, "the ledger was to cover each delta"
    first = asyncio.ensure_future(_first(generation))
    try:
        with record.patience:
            await asyncio.wait((first,), timeout=settings.sse_ping_s)
        if first.done():
            first.result()
    except BaseException:
        await _end(first, generation)
        raise
    return EventStream(first, generation, frames, record, settings)


async def _first(generation: Generation) -> Delta:
    return await anext(generation)


class EventStream(EventSourceResponse):
    """sse-starlette's response, with a loop of its own that sends bytes as they are and ends on purpose.

    Whatever happens, the engine's work is aborted and accounted for before the call returns; sse-starlette alone leaves
    its iterator open when the client goes during a send, and times every send apart, which costs more than the send.
    Of its tasks only that of the keep-alive comments is left.
    """

    def __init__(
        self,
        first: asyncio.Future[Delta],
        generation: Generation,
        frames: Frames,
        record: RequestRecord,
        settings: Settings,
    ) -> None:
        super().__init__(
            generation,
            ping=settings.sse_ping_s,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            sep="\n",
        )
        del self.headers["connection"]  # whether it is kept is the protocol's to say
        self._first = first
        self._generation = generation
        self._frames = frames
        self._record = record
        self._complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        comments = asyncio.ensure_future(self._ping(send))
        try:
            await self._stream_response(send)
        finally:
            comments.cancel()
            if not self._complete and self._record.outcome == "ok":
                self._record.outcome = "client_gone"
            await _end(self._first, self._generation)

    async def _stream_response(self, send: Send) -> None:
        """In the request's own task, which its client's leaving interrupts, beside the keep-alive comments."""
        generation, patience = self._generation, self._record.patience
        try:
            with patience:  # the client may still have to take an answer before this one
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        except ClientGone:
            return
        except ApiError as exc:
            note_error(self._record, exc, started=False)
            return
        try:
            with patience:
                await send(_body(self._chunk(await self._first)))
                if (cycle := getattr(send, "cycle", None)) is not None:
                    generation.hand_to(cycle, self._chunk)
                async for delta in generation:
                    if patience.over:  # a task whose next delta is always there is never interrupted
                        await asyncio.sleep(0)
                    if chunk := self._chunk(delta):
                        await send(_body(chunk))
                await self._send_last(send, self._frames.usage_chunk(generation.usage))
            return
        except ClientGone:
            return
        except Exception as exc:
            error = as_api_error(exc, self._record)
            note_error(self._record, error, started=True)
            last = b"data: " + orjson.dumps(error_body(error)) + b"\n\n"
        if not self._complete:
            with suppress(TimeoutError):  # the client takes nothing any more, which is no failure of ours
                async with asyncio.timeout(LAST_SEND_S):
                    await self._send_last(send, last)

    async def _send_last(self, send: Send, last: bytes) -> None:
        """Under the lock of the keep-alive comments: one that is being sent goes first, and none follows the end."""
        async with self._send_lock:
            await send(_body(last + DONE))
            self._complete = True
            self.active = False
            await send(_body(b"", more=False))

    def _chunk(self, delta: Delta) -> bytes:
        return self._frames.frames(delta, self._generation.usage if self._frames.continuous_usage else None)


def _body(chunk: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _end(first: asyncio.Future[Delta], generation: Generation) -> None:
    """Shielded: a server that is shutting down cancels its connections, and this must still run."""
    with anyio.CancelScope(shield=True):
        if not first.done():
            first.cancel()
            await asyncio.wait({first})
        await generation.aclose()
