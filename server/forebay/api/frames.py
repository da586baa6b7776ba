"""Deltas -> chunks, in the two shapes of OpenAI's streams. A chunk is one `data:` frame, as bytes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from forebay.api.answers import reasoning_fields, usage_body
from forebay.api.logprobs import chat_logprobs, completion_logprobs
from forebay.api.schemas import StreamOptions
from forebay.types import Delta, Usage

PAD_TO = 64
"""Obfuscated chunks have lengths that are multiples of this (Whisper Leak, arXiv:2511.03675)."""


class Frames:
    """What both shapes share: the constant head, usage, padding."""

    def __init__(self, head: dict[str, Any], options: StreamOptions | None, *, logprobs: bool) -> None:
        options = options or StreamOptions()
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        self._logprobs = logprobs
        self.continuous_usage = bool(options.continuous_usage_stats)
        self._include_usage = bool(options.include_usage) or self.continuous_usage
        self._obfuscate = bool(options.include_obfuscation)

    def chunk(self, choice: bytes, usage: Usage | None) -> bytes:
        """`choice` is JSON."""
        body = self._head + choice + b"]"
        if usage is not None:
            body += b',"usage":' + orjson.dumps(usage_body(usage))
        elif self._include_usage:
            body += b',"usage":null'
        if self._obfuscate:
            padding = secrets.token_hex(PAD_TO)[: PAD_TO - (len(body) + 20) % PAD_TO]
            body += b',"obfuscation":"' + padding.encode() + b'"'
        return body + b"}\n\n"

    def usage_chunk(self, usage: Usage) -> bytes:
        """The last chunk, if asked for."""
        if not self._include_usage:
            return b""
        return self._head + b'],"usage":' + orjson.dumps(usage_body(usage)) + b"}\n\n"

    def frames(self, delta: Delta, usage: Usage | None) -> bytes:
        """The chunks that a delta becomes: none, one or several. `usage` so far is given if `continuous_usage`."""
        raise NotImplementedError


class ChatFrames(Frames):
    """`chat.completion.chunk`: the role first, then deltas, then the finish, for each choice."""

    def __init__(
        self, head: dict[str, Any], options: StreamOptions | None, *, logprobs: bool, reasoning_content: bool
    ) -> None:
        super().__init__(head, options, logprobs=logprobs)
        self._reasoning_content = reasoning_content
        self._around: dict[int, tuple[bytes, bytes]] = {}
        """Of each choice that has begun: what stands before and after a piece of its text."""

    def frames(self, delta: Delta, usage: Usage | None) -> bytes:
        out = b""
        around = self._around.get(delta.index)
        if around is None:
            before, _, after = _chat_choice(delta.index, {"content": None}).partition(b"null")
            around = self._around[delta.index] = before, after
            out = self.chunk(_chat_choice(delta.index, {"role": "assistant", "content": ""}), usage)
        if delta.reasoning:
            fields = reasoning_fields(delta.reasoning, reasoning_content=self._reasoning_content)
            out += self.chunk(_chat_choice(delta.index, fields), usage)
        if self._logprobs and (delta.text or delta.logprobs):
            logprobs = chat_logprobs(delta.logprobs)
            out += self.chunk(_chat_choice(delta.index, {"content": delta.text}, logprobs=logprobs), usage)
        elif delta.text:
            out += self.chunk(around[0] + orjson.dumps(delta.text) + around[1], usage)
        if (reason := delta.finish_reason) is not None:
            out += self.chunk(_chat_choice(delta.index, {}, finish_reason=reason, stop_reason=delta.stop_reason), usage)
        return out


def _chat_choice(index: int, delta: dict[str, Any], **end: Any) -> bytes:
    return orjson.dumps({"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **end})


class CompletionFrames(Frames):
    """`text_completion`: the echo first if asked for, then text, the finish with the last of it."""

    def __init__(
        self, head: dict[str, Any], options: StreamOptions | None, echoes: Sequence[str], *, logprobs: bool
    ) -> None:
        super().__init__(head, options, logprobs=logprobs)
        self._echoes = dict(enumerate(echoes))
        self._offsets: dict[int, int] = {}

    def frames(self, delta: Delta, usage: Usage | None) -> bytes:
        text = self._echoes.pop(delta.index, "") + delta.text
        if not (text or delta.finish_reason or (self._logprobs and delta.logprobs)):
            return b""
        logprobs = None
        if self._logprobs and delta.logprobs:
            offset = self._offsets.get(delta.index, 0)
            logprobs = completion_logprobs(delta.logprobs, offset=offset)
            self._offsets[delta.index] = offset + sum(len(token.chosen.token) for token in delta.logprobs)
        choice: dict[str, Any] = {
            "index": delta.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
        }
        if delta.finish_reason is not None:
            choice["stop_reason"] = delta.stop_reason
        return self.chunk(orjson.dumps(choice), usage)
