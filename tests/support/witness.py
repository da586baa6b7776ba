"""What a server with a journal says of a request: the engine's own record, and the line in the log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from support.server import ServerProcess
from support.wire import eventually


@dataclass(frozen=True, slots=True)
class Load:
    """Read from /metrics."""

    running: float
    waiting: float
    in_flight: float


class Witness:
    """Reads along while the server runs."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._path = server.log_path.with_name("journal")
        self._offset = 0
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._client = httpx.Client(base_url=server.url, timeout=10)

    def close(self) -> None:
        self._client.close()

    def journal(self, request_id: str | None = None) -> list[dict[str, Any]]:
        """Events of a request (of all its prompts), or of all requests."""
        self._read_on()
        if request_id is None:
            return [event for events in self._events.values() for event in events]
        return self._events.get(request_id, [])

    def _read_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as journal:
            journal.seek(self._offset)
            for line in journal:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = json.loads(line)
                # Prompts of one request are told apart by a suffix.
                self._events.setdefault(event["request_id"].partition("-")[0], []).append(event)

    def num_generated(self, request_id: str) -> int:
        return sum(event["num_tokens"] for event in self.journal(request_id) if event["event"] == "tokens")

    def newest(self, seen: set[str]) -> str:
        """The id of a request that the engine knows and `seen` does not; waits for it."""
        return eventually(lambda: next(iter(self.seen() - seen), None))

    def seen(self) -> set[str]:
        self._read_on()
        return set(self._events)

    def wait_for(self, request_id: str, event: str, *, count: int = 1, timeout_s: float = 5.0) -> None:
        eventually(
            lambda: sum(line["event"] == event for line in self.journal(request_id)) >= count, timeout_s=timeout_s
        )

    def line(self, request_id: str) -> dict[str, Any]:
        """The request's line in the log; waits for it."""
        return eventually(lambda: next((line for line in self.lines() if line["request_id"] == request_id), None))

    def lines(self) -> Iterator[dict[str, Any]]:
        for line in self._server.written.splitlines():
            if '"event":"request"' in line:
                yield json.loads(line)

    def value(self, pattern: str) -> float:
        """The sum of the metrics whose names and labels match."""
        return _sum(self._client.get("/metrics").text, pattern)

    def load(self) -> Load:
        text = self._client.get("/metrics").text
        return Load(
            running=_sum(text, "forebay_engine_running_sequences"),
            waiting=_sum(text, "forebay_engine_waiting_sequences"),
            in_flight=_sum(text, "forebay_requests_in_flight"),
        )

    def wait_idle(self) -> None:
        """Until nothing is left of any request: no slot, no place in the queue, no handler."""
        eventually(lambda: (load := self.load()).running == load.waiting == load.in_flight == 0)


def _sum(metrics: str, pattern: str) -> float:
    return sum(map(float, re.findall(rf"^{pattern} (\S+)$", metrics, re.MULTILINE)))
