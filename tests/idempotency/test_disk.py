"""A disk that takes nothing: the end of an answer waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx

from forebay.stores.sqlite import FILE_NAME
from support.full_disk import ask_until_refused, full_disk
from support.keyed import CHAT, keyed, new_key, question, request_id_of
from support.ledger import LedgerFile
from support.server import ServerProcess, journalled_server
from support.wire import connect, post
from support.witness import Witness

GRACE_S = 0.2


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


async def test_who_comes_back_while_it_is_kept(tmp_path: Path) -> None:
    """A generation that is complete is not given up: when the grace ends on a slow disk, it is told of as what it is,
    and whoever comes with the key waits for the answer."""
    key, body = keyed(new_key()), question(CHAT, stream=True, num_tokens=4, ms=20)
    with (
        journalled_server(tmp_path, FOREBAY_IDEMPOTENCY_GRACE_S=str(GRACE_S)) as server,
        closing(Witness(server)) as witness,
        closing(sqlite3.connect(server.data_dir / FILE_NAME, isolation_level=None)) as other,
    ):
        with connect(server.port) as sock:
            sock.sendall(post(CHAT, body, *[f"{name}: {value}" for name, value in key.items()]))
            request_id = witness.newest(set())
            witness.wait_for(request_id, "tokens")
            other.execute("BEGIN IMMEDIATE")
            witness.wait_for(request_id, "finish")
        await asyncio.sleep(2 * GRACE_S)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            coming = asyncio.create_task(client.post(CHAT, json=body, headers=key))
            await asyncio.sleep(GRACE_S)
            assert not coming.done()
            other.execute("ROLLBACK")
            answer = await coming
        assert answer.content.endswith(b"data: [DONE]\n\n")
        assert b"error" not in answer.content
        assert (witness.line(request_id)["outcome"], witness.num_generated(request_id)) == ("ok", 4)
