"""What the scripted engine generated, on disk before anyone has seen it: a witness that survives kill -9."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import orjson

Event = Literal["start", "tokens", "finish", "abort"]


class Journal:
    """Appends one JSON line an event: `request_id`, `index`, `event`, `num_tokens`.

    `num_tokens` is the number of prompt tokens at `start`, of new tokens at `tokens`, and of all generated tokens of
    the choice at `finish` and `abort`. Each line is handed to the kernel before the tokens leave the engine.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, request_id: str, index: int, event: Event, num_tokens: int) -> None:
        line = {"request_id": request_id, "index": index, "event": event, "num_tokens": num_tokens}
        os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        os.close(self._file)
