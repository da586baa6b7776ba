"""Keys made and changed over a server's admin API."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from support.server import ServerProcess

OWNER = "canary-owner-0123456789"
"""A key of the settings, for servers that have one."""


@dataclass(frozen=True, slots=True)
class Made:
    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


class AdminClient(AbstractContextManager["AdminClient"]):
    """Asks with the key of an owner, or any other."""

    def __init__(self, server: ServerProcess, key: str) -> None:
        self.headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=server.admin_url, headers=self.headers, timeout=30)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self._client.request(method, f"/admin{path}", json=body, **options)

    def make(self, **fields: Any) -> Made:
        made = self.get("POST", "/keys", fields)
        return Made(made["id"], made["key"])

    def get(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that must be good."""
        answer = self.ask(method, path, body, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()
