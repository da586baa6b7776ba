"""Sessions out of files: our own JSON lines, ShareGPT's conversations, BurstGPT's trace."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from forebay.bench.datasets.prompts import PromptMaker
from forebay.bench.datasets.session import Session, Turn
from forebay.errors import ConfigurationError

CHARACTERS_A_TOKEN = 4
"""Of English text in today's vocabularies, about; for answers of which a file has only the text."""
NAMES = {"prompt", "turns", "output_tokens", "at"}
MOST_TOKENS = 10_000_000
MIN_LEN, MAX_LEN = 4, 1024
"""Shorter or longer ones are left out of ShareGPT, as is usual: they are greetings and pastes."""


def custom(path: Path, output_len: int | None, *, as_text: bool) -> list[Session]:
    """A JSON object a line: `prompt` (text or token ids) or `turns` (list of texts), `output_tokens`, `at` (seconds).

    Only the first is needed; `at` is in every line or in none. `as_text`: token ids cannot be sent.
    Raises ConfigurationError that names the line at fault.
    """
    sessions = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        with _refused(f"{path}:{number}"):
            entry = orjson.loads(line)
            if unknown := entry.keys() - NAMES or ({"turns"} & entry.keys() if "prompt" in entry else set()):
                raise ValueError(f"{unknown.pop()} is not among prompt or turns, output_tokens, at")
            max_tokens = _count(entry.get("output_tokens", 128))
            prompts = _turns(entry["turns"]) if "turns" in entry else [_prompt(entry["prompt"], as_text)]
            at_s = _seconds(entry["at"]) if "at" in entry else None
            sessions.append(Session(tuple(Turn(prompt, output_len or max_tokens) for prompt in prompts), at_s))
            if (sessions[0].at_s is None) != (at_s is None):
                raise ValueError("at is in some lines only")
    return _some(sessions, path)


def sharegpt(path: Path, output_len: int | None) -> list[Session]:
    """The first question of each conversation in ShareGPT's JSON, and an answer as long as the one it got there."""
    with _refused(str(path)):
        sessions = []
        for entry in orjson.loads(_read(path)):
            said = [turn["value"] for turn in entry.get("conversations", [])[:2]]
            if len(said) < 2:
                continue
            asked, answered = (len(text) // CHARACTERS_A_TOKEN for text in said)
            if MIN_LEN <= asked <= MAX_LEN and MIN_LEN <= answered <= MAX_LEN:
                sessions.append(Session((Turn(said[0], output_len or answered),)))
    return _some(sessions, path)


def burstgpt(path: Path, maker: PromptMaker, num: int, output_len: int | None) -> list[Session]:
    """Made-up prompts as long as the first `num` of BurstGPT's CSV, at its times; requests that failed there are left
    out.

    Columns `Timestamp` (seconds), `Request tokens`, `Response tokens` (arXiv:2401.17644). No more are drawn than are
    wanted: the file has over a million.
    """
    sessions: list[Session] = []
    with _refused(str(path)):
        rows = csv.DictReader(_read(path).decode().splitlines())
        for row in rows:
            if len(sessions) == num:
                break
            with _refused(f"{path}:{rows.line_num}"):
                asked, answered = int(row["Request tokens"]), int(row["Response tokens"])
                if asked > 0 and answered > 0:
                    turn = Turn(maker.draw(_count(asked)), output_len or _count(answered))
                    sessions.append(Session((turn,), _seconds(float(row["Timestamp"]))))
    return _some(sessions, path)


def _turns(value: Any) -> list[Any]:
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return value
    raise ValueError("turns is a list of at least one text")


def _count(value: Any) -> int:
    if type(value) is int and 1 <= value <= MOST_TOKENS:
        return value
    raise ValueError(f"{value!r} is no number of tokens")


def _seconds(value: Any) -> float:
    if type(value) in (int, float) and 0 <= value < math.inf:
        return float(value)
    raise ValueError(f"{value!r} is no number of seconds")


def _prompt(value: Any, as_text: bool) -> str | list[int]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        if as_text:
            raise ValueError("a chat is of text: token ids need --endpoint /v1/completions")
        return value
    raise ValueError("a prompt is a text or a list of token ids")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc


def _some(sessions: list[Session], path: Path) -> list[Session]:
    if not sessions:
        raise ConfigurationError(f"{path} holds nothing to ask.")
    return sessions


@contextmanager
def _refused(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as exc:
        raise ConfigurationError(f"{where} is not in the documented form: {type(exc).__name__}: {exc}.") from exc
