"""What the machine can do at best with this HTTP server: a raw ASGI app that sends answers made beforehand.

`python -m forebay.bench.yardstick PORT`. It reads of a request whether it wants a stream and how many tokens, and has
no keys, limits, ledger, logs, metrics, and no engine. Ratios to it are what the rest costs, on whatever machine.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn

Message = MutableMapping[str, Any]

CHUNK = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"forebay",'
    b'"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}],"usage":null}\n\n'
)
FRAME = CHUNK % (b'{"content":" word"}', b"null")
LAST = CHUNK % (b"{}", b'"length"')
STREAM_HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Any POST is answered; a GET too, so that one can wait for the server."""
    if scope["type"] != "http":
        return
    body = b""
    while scope["method"] == "POST":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = orjson.loads(body or b"{}")
    num_tokens = int(asked.get("max_tokens", 16))
    usage = {"prompt_tokens": 8, "completion_tokens": num_tokens, "total_tokens": 8 + num_tokens}
    if not asked.get("stream"):
        await _answer(usage, send)
        return
    await send(STREAM_HEAD)
    for _ in range(num_tokens):
        await send({"type": "http.response.body", "body": FRAME, "more_body": True})
    end = b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"
    await send({"type": "http.response.body", "body": LAST + end})


async def _answer(usage: dict[str, int], send: Callable[[Message], Awaitable[None]]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": " word" * 16}, "finish_reason": "length"}
    body = orjson.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    quiet: dict[str, Any] = {"log_config": None, "access_log": False}
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[-1]), loop="uvloop", http="httptools", **quiet)
