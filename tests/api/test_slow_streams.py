"""Streams to clients that do not read as fast as the engine writes."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

from support.server import ServerProcess
from support.wire import connect, post, read_until

NUM_CHOICES = 8
NUMBERS = " ".join(f"{number:04d}" for number in range(700))


def unchunked(body: bytes) -> bytes:
    """Without the framing of RFC 9112, 7.1."""
    pieces = []
    while True:
        length, _, rest = body.partition(b"\r\n")
        if not int(length, 16):
            return b"".join(pieces)
        piece, body = rest[: int(length, 16)], rest[int(length, 16) + 2 :]
        pieces.append(piece)


def read_stream(server: ServerProcess, pause_s: float) -> tuple[dict[int, str], int, dict[str, Any]]:
    """The choices' texts, the number of frames and the usage, of an answer that is not read for `pause_s` seconds."""
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "n": NUM_CHOICES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 8000,
        "metadata": {"forebay_script": NUMBERS, "forebay_burst": "1"},
    }
    with connect(server.port, receive_buffer=4096) as sock:
        sock.sendall(post("/v1/chat/completions", body))
        time.sleep(pause_s)
        raw = read_until(sock, b"0\r\n\r\n")
    frames = unchunked(raw.partition(b"\r\n\r\n")[2]).split(b"\n\n")
    assert frames[-2:] == [b"data: [DONE]", b""]
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames[:-2] if not frame.startswith(b":")]
    texts: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    return texts, len(chunks), chunks[-1]["usage"]


def test_what_a_connection_takes_no_more_is_kept_for_it(server: ServerProcess) -> None:
    """A client that pauses gets every character once and in order; what gathered meanwhile comes in fewer frames."""
    at_once, _, usage = read_stream(server, pause_s=0.0)
    paused, num_frames, usage_paused = read_stream(server, pause_s=1.5)
    assert at_once == paused == dict.fromkeys(range(NUM_CHOICES), NUMBERS)
    assert usage == usage_paused
    assert num_frames < usage["completion_tokens"] / 2
