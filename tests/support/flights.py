"""Identical requests at a time: one that begins an answer and leaves, and those who read along."""

from __future__ import annotations

import re
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from support.administrator import OWNER
from support.cached import CHAT, TEXT, Asker
from support.server import ServerProcess
from support.wire import connect, eventually, post
from support.witness import Witness

LATE = {"forebay_script": TEXT, "forebay_first_token_ms": "800", "forebay_inter_token_ms": "5"}
NO_DRIFT = {"prompt": 0, "generated": 0}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def body(question: str, **fields: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 400}
    options = {"include_usage": True, "continuous_usage_stats": True}
    return {**asked, "stream": True, "stream_options": options, **fields}


class Leader:
    """Begins an answer over a socket of its own, to leave it."""

    def __init__(self, server: ServerProcess, witness: Witness, question: str, *lines: str, **fields: Any) -> None:
        seen = witness.seen()
        self.sock: socket.socket = connect(server.port)
        self.sock.sendall(post(CHAT, body(question, **fields), f"Authorization: Bearer {OWNER}", *lines))
        self.request_id = witness.newest(seen)
        witness.wait_for(self.request_id, "start")

    def read(self, num_tokens: int) -> None:
        """At least so many."""
        got, num_read = b"", 0
        while num_read < num_tokens:
            piece = self.sock.recv(65536)
            assert piece
            got += piece
            num_read = max(map(int, re.findall(rb'"completion_tokens":(\d+)', got)), default=0)


def follow(
    asker: Asker, question: str, num: int, pool: ThreadPoolExecutor, **fields: Any
) -> list[Future[httpx.Response]]:
    """So many who read along; returns once they do."""
    kinds: list[dict[str, Any]] = [{}, WITH_USAGE]
    before = num_joined(asker)
    asked = [pool.submit(asker.ask, question, **kinds[i % 2], **fields) for i in range(num)]
    eventually(lambda: num_joined(asker) >= before + num)
    return asked


def num_joined(asker: Asker) -> int:
    settled = asker.ledger.query("SELECT 1 FROM entries WHERE cache_kind = 'joined' AND kind = 'settle'")
    return len(settled) + sum(held.cache_kind == "joined" for held in asker.ledger.reservations().values())
