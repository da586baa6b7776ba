"""Servers with a cache for tests, and what is asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.administrator import OWNER, AdminClient
from support.ledger import LedgerFile
from support.server import ServerProcess, free_port, journalled_server
from support.sse import read_chunks

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TEXT = " ".join(f"word{number}" for number in range(30))
PROMPT, COMPLETION, HIT = 1_000_000, 2_000_000, 500_000
"""Micro-units for a million tokens."""


@contextmanager
def cached_server(folder: Path, **env: str) -> Iterator[ServerProcess]:
    """The scripted engine with a journal, an owner's key, prices, and the exact tier; again on what was left there."""
    port = folder / "admin-port"
    if not port.exists():
        port.write_text(str(free_port()))
    prices = {"version": "1", "models": {"*": {"prompt": PROMPT, "completion": COMPLETION, "cache_hit": HIT}}}
    (folder / "prices.json").write_text(json.dumps(prices))
    defaults = {
        "FOREBAY_CACHE": "exact",
        "FOREBAY_API_KEYS": OWNER,
        "FOREBAY_PRICES_FILE": str(folder / "prices.json"),
        "FOREBAY_ADMIN_PORT": port.read_text(),
    }
    with journalled_server(folder, **(defaults | env)) as running:
        yield running


class Asker:
    """Asks one question at a time, or many, with one key."""

    def __init__(self, server: ServerProcess, key: str = OWNER) -> None:
        self.server = server
        self.ledger = LedgerFile(server.data_dir)
        self._client = httpx.Client(
            base_url=server.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
            limits=httpx.Limits(max_connections=200),
        )

    def close(self) -> None:
        self._client.close()

    def ask(
        self, question: str, *, headers: dict[str, str] | None = None, path: str = CHAT, **fields: Any
    ) -> httpx.Response:
        """Greedily, and the script's words come back."""
        return self._client.post(path, json=_body(question, path, fields), headers=headers)

    def stream(self, question: str, **fields: Any) -> AbstractContextManager[httpx.Response]:
        """The answer while it comes."""
        return self._client.stream("POST", CHAT, json=_body(question, CHAT, {"stream": True, **fields}))

    def outcome(self, question: str, **options: Any) -> str:
        """What the header says of a good answer."""
        answer = self.ask(question, **options)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-cache"]

    def ask_together(self, question: str, num: int, **options: Any) -> list[httpx.Response]:
        with ThreadPoolExecutor(num) as pool:
            return list(pool.map(lambda _: self.ask(question, **options), range(num)))

    def row(self, answer: httpx.Response) -> dict[str, Any]:
        """Its settlement."""
        return self.ledger.settled(request_id_of(answer))

    def drift(self) -> dict[str, int]:
        with AdminClient(self.server, OWNER) as owner:
            found: dict[str, int] = owner.get("GET", "/usage/reconcile")["drift"]
        return found


def _body(question: str, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    asked = {"prompt": question} if path == COMPLETIONS else {"messages": [{"role": "user", "content": question}]}
    return {**asked, "temperature": 0, "max_tokens": 400, "metadata": {"forebay_script": TEXT}, **fields}


def request_id_of(answer: httpx.Response) -> str:
    first = answer.content.partition(b"\n")[0].removeprefix(b"data: ")
    return str(json.loads(first)["id"].partition("-")[2])


def text_of(answer: httpx.Response) -> str:
    """Whole or streamed, of either route."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("application/json"):
        (choice,) = answer.json()["choices"]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])
    choices = [choice for chunk in read_chunks(answer) for choice in chunk["choices"]]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)


def usage_of(answer: httpx.Response) -> dict[str, Any]:
    """A stream must have been asked for it."""
    streamed = not answer.headers["content-type"].startswith("application/json")
    found: dict[str, Any] = read_chunks(answer)[-1]["usage"] if streamed else answer.json()["usage"]
    return found
