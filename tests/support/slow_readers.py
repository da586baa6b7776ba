"""Many who ask the same and read it at different paces."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from forebay.engines.scripted.tokenizer import encode_plain
from support.administrator import OWNER
from support.cached import CHAT, Asker, text_of
from support.flights import body, num_joined
from support.server import ServerProcess
from support.wire import connect, eventually, post, read_until

TOKEN_MS = 0.3
NUM_FAST = 4
SMALL_BUFFER = 4096
LONG_NAME = "scripted-" + 240 * "x"
"""Of the model, which is in every frame: the answers are more than a connection's buffers hold."""
SETTINGS = {"FOREBAY_SERVED_MODEL_NAMES": f"scripted,{LONG_NAME}", "FOREBAY_MAX_MODEL_LEN": "200000"}
"""Of a server for it."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Crowd:
    """`fast_s`: until all the fast ones had it; `engine_s`: how long the engine takes by itself. Of the slow ones, how
    many had ended by then. `whole`: who got all of it in the end. `growth_mib`: of the server's memory meanwhile."""

    fast_s: float
    engine_s: float
    slow_finished_before: int
    whole: int
    growth_mib: float


def crowd(server: ServerProcess, asker: Asker, *, num_slow: int, num_tokens: int, leave: bool = False) -> Crowd:
    """The first of the slow ones begins it; with `leave` there are no fast ones, and all of them go."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    question = f"Something long, for {num_slow}?"
    text = " ".join(f"{number:09d}" for number in range(num_tokens // 10))
    script = {"forebay_script": text, "forebay_inter_token_ms": str(TOKEN_MS), "forebay_first_token_ms": "500"}
    fields = {"model": LONG_NAME, "max_tokens": 2 * num_tokens, "metadata": script}
    message = post(CHAT, body(question, **fields), f"Authorization: Bearer {OWNER}")
    before, rss = num_joined(asker), process.memory_info().rss
    began = time.monotonic()
    slow = [connect(server.port, receive_buffer=SMALL_BUFFER) for _ in range(num_slow)]
    for sock in slow:
        sock.sendall(message)
    eventually(lambda: num_joined(asker) >= before + num_slow - 1)
    if leave:
        for sock in slow:
            sock.close()
        eventually(lambda: asker.ledger.num_open() == 0)
        return Crowd(0, 0, 0, 0, 0)
    with ThreadPoolExecutor(NUM_FAST) as pool:
        answers = list(pool.map(lambda _: asker.ask(question, stream=True, **fields), range(NUM_FAST)))
    fast_s = time.monotonic() - began
    eventually(lambda: len(asker.ledger.rows("settle")) >= NUM_FAST)
    growth = process.memory_info().rss - rss
    finished = len(asker.ledger.rows("settle")) - NUM_FAST
    whole = sum(text_of(answer) == text for answer in answers)
    for sock in slow:
        said = read_until(sock, b"[DONE]")
        sock.close()
        whole += "".join(re.findall(r'"content":"([^"]*)"', said.decode())) == text
    eventually(lambda: asker.ledger.num_open() == 0)
    return Crowd(fast_s, 0.5 + len(encode_plain(text)) * TOKEN_MS / 1000, finished, whole, growth / MIB)
