"""A disk that takes nothing: the end of an answer waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from support.full_disk import ask_until_refused, full_disk
from support.keyed import CHAT, keyed, new_key, question, request_id_of
from support.ledger import LedgerFile
from support.server import ServerProcess


async def test_an_answer_ends_when_it_is_kept(make_server: Callable[..., ServerProcess]) -> None:
    """What was said is durable or not yet whole: the stream stops before its end until the disk takes the answer, and
    whoever has the key waits along. It is billed once, and given again."""
    server = make_server()
    key, body = keyed(new_key()), question(CHAT, stream=True, num_tokens=4, ms=700)
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        async with client.stream("POST", CHAT, json=body, headers=key) as answer:
            pieces = answer.aiter_raw()
            with full_disk(server):
                await ask_until_refused(client)
                content = b""
                while b'"finish_reason":"length"' not in content:
                    content += await anext(pieces)
                joined = asyncio.create_task(client.post(CHAT, json=body, headers=key))
                assert (await client.post(CHAT, json=body, headers=keyed(new_key()))).status_code == 503
                assert b"[DONE]" not in content
                assert not joined.done()
            content += b"".join([piece async for piece in pieces])
        assert content.endswith(b"data: [DONE]\n\n")
        assert (await joined).content == content
        assert (await client.post(CHAT, json=body, headers=key)).content == content
    ledger = LedgerFile(server.data_dir)
    assert (await asyncio.to_thread(ledger.settled, request_id_of(content)))["completion_tokens"] == 4
    assert ledger.faults() == []
