"""A client that leaves a stream after so many tokens, and what engine and ledger then say."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.ledger import LedgerFile
from support.server import ServerProcess
from support.wire import connect, finish, post, reset
from support.witness import Witness

WAYS: dict[str, Callable[[socket.socket], None]] = {"FIN": finish, "RST": reset}
USAGE = re.compile(rb'"completion_tokens":(\d+)')


@dataclass(frozen=True, slots=True)
class Departure:
    """`abort_s`: from leaving until the engine was told. Tokens that the client had read, the engine had made, the
    ledger billed."""

    abort_s: float
    read: int
    generated: int
    billed: int
    outcome: str


def leave_after(server: ServerProcess, witness: Witness, num_tokens: int, way: str, *lines: str) -> Departure:
    """One token a frame, a few milliseconds apart. `lines`: more headers."""
    seen = witness.seen()
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "metadata": {"forebay_inter_token_ms": "3", "forebay_first_token_ms": "0" if num_tokens else "60000"},
    }
    with connect(server.port) as sock:
        sock.sendall(post("/v1/chat/completions", body, *lines))
        request_id = witness.newest(seen)
        witness.wait_for(request_id, "start")
        num_read = read_tokens(sock, num_tokens)
        left_at = time.monotonic()
        WAYS[way](sock)
        witness.wait_for(request_id, "abort")
        abort_s = time.monotonic() - left_at
    row = LedgerFile(server.data_dir).settled(request_id)
    return Departure(abort_s, num_read, witness.num_generated(request_id), row["completion_tokens"], row["outcome"])


def read_tokens(sock: socket.socket, num_tokens: int) -> int:
    """Reads until the usage of a frame says at least so many; what it says. A busy server puts several in a frame."""
    got, num_read = b"", 0
    while num_read < num_tokens:
        piece = sock.recv(65536)
        assert piece, "the stream ended"
        got += piece
        num_read = max((int(number) for number in USAGE.findall(got[: got.rfind(b"\n") + 1])), default=0)
    return num_read
