"""Requests with an Idempotency-Key, and what engine and ledger have of the work that they asked for."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

from support.ledger import LedgerFile
from support.server import ServerProcess
from support.wire import eventually, post
from support.witness import Witness

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
_numbers = itertools.count()


def new_key() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def question(path: str, *, stream: bool = False, num_tokens: int = 12, ms: float = 0, **more: Any) -> dict[str, Any]:
    """`ms`: between tokens."""
    body: dict[str, Any] = {"max_tokens": num_tokens}
    if path == GENERATE:
        return body | {"prompt": "go"} | more
    body |= {"ignore_eos": True, "metadata": {"forebay_inter_token_ms": str(ms)}}
    body |= {"messages": [{"role": "user", "content": "go"}]} if path == CHAT else {"prompt": "go"}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | more


def raw_post(key: str, body: dict[str, Any], path: str = CHAT, **headers: str) -> bytes:
    """For a plain socket."""
    return post(path, body, f"Idempotency-Key: {key}", *(f"{name}: {value}" for name, value in headers.items()))


def request_id_of(answer: bytes) -> str:
    """Of the request whose answer this is, whole or a stream."""
    first = answer.partition(b"\n")[0].removeprefix(b"data: ")
    return str(json.loads(first)["id"].partition("-")[2])


class Books:
    """What came into the engine's journal and the ledger since it was opened."""

    def __init__(self, server: ServerProcess, witness: Witness) -> None:
        self._ledger = LedgerFile(server.data_dir)
        self._witness = witness
        self._seen = witness.seen()

    def started(self) -> set[str]:
        """The requests that the engine began."""
        return self._witness.seen() - self._seen

    def settlement(self) -> dict[str, Any]:
        """The only one there is; waits for it."""
        (request_id,) = eventually(self.started)
        return self._ledger.settled(request_id)

    def outcomes(self) -> list[str]:
        """Of every request that the engine began, in the order of their settlements; waits for them."""
        return [row["outcome"] for row in sorted(map(self._ledger.settled, self.started()), key=lambda row: row["seq"])]
