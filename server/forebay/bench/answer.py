"""One answer while it arrives: whole JSON or a stream of server-sent events, told apart by its content type."""

from __future__ import annotations

from typing import Any

import orjson

from forebay.bench.outcome import FailureKind, Outcome

OTHER_TEXTS = ("reasoning", "reasoning_content", "tool_calls")
"""What of a chat delta is made of tokens, beside its content."""
MAX_MESSAGE = 200
USAGE_WITHIN = 2048
"""Bytes at the end of a stream that hold its last frame."""
MAX_TOKENS = 2**53
"""From here on a number of tokens is not believed: JSON's numbers are exact below it."""


class Answer:
    """Fed by a connection; fills the outcome. Times are the seconds of the clock that the caller reads."""

    __slots__ = (
        *("_body", "_done", "_fed_s", "_finished", "_keep_text", "_last_s", "_rest", "_streams"),
        *("num_frames", "outcome"),
    )

    def __init__(self, outcome: Outcome, keep_text: bool = False) -> None:
        self.outcome = outcome
        self.num_frames = 0
        self._keep_text = keep_text
        self._streams = False
        self._body = bytearray()
        self._rest = b""
        self._last_s = self._fed_s = 0.0
        self._finished = self._done = False

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """`headers` by lower-case name."""
        self.outcome.status = status
        self._streams = status == 200 and headers.get(b"content-type", b"").startswith(b"text/event-stream")
        self.outcome.cache = headers.get(b"x-cache", b"").decode("latin-1")

    def feed(self, data: bytes, now_s: float) -> None:
        """A piece of the body. An event's data is one line here, as every server of this API sends it."""
        if not self._streams:
            self._body += data
            self._last_s = now_s
            return
        self._fed_s = now_s
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now_s)

    def end(self) -> None:
        """The message is complete: what is missing in it is a fault of the server's."""
        outcome = self.outcome
        if outcome.failure is not None:
            return
        if outcome.status != 200:
            self.fail("status", bytes(self._body[:MAX_MESSAGE]).decode(errors="replace"))
        elif self._streams:
            self._last_line()
            outcome.latency_s = (self._last_s or outcome.start_s) - outcome.start_s
            if not (self._done or self._finished):
                self.fail("cut", "The stream ended without a finish reason and without [DONE].")
            elif not self._last_s:
                self.fail("cut", "The stream held no choice.")
        else:
            self._whole()

    def fail(self, kind: FailureKind, message: str) -> None:
        """The first reason counts."""
        if self.outcome.failure is None:
            self.outcome.failure, self.outcome.message = kind, message

    def _last_line(self) -> None:
        """The last line may lack its newline. Where it breaks off, the stream was cut."""
        if not self._rest.startswith(b"data:"):
            return
        data = self._rest[5:].strip()
        try:
            if data != b"[DONE]":
                orjson.loads(data)
        except ValueError:
            self.fail("cut", "The stream ended within a line.")
        else:
            self._event(data, self._fed_s)

    def _event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            frame = orjson.loads(data)
            if (choices := frame.get("choices")) and self.outcome.failure is None:
                self._choices(choices, now_s)
            if usage := frame.get("usage"):
                self._usage(usage)
            if error := frame.get("error"):
                self.fail("stream_error", str(error)[:MAX_MESSAGE])
        except (ValueError, AttributeError, TypeError, KeyError) as exc:
            self.fail("malformed", f"{type(exc).__name__} in {data[:80]!r}")

    def _choices(self, choices: list[dict[str, Any]], now_s: float) -> None:
        outcome = self.outcome
        text: Any = ""
        for choice in choices:
            delta = choice.get("delta")
            said = choice["text"] if delta is None else delta.get("content")
            if said and self._keep_text:
                outcome.text += said
            text = text or said or (delta and next((delta[name] for name in OTHER_TEXTS if delta.get(name)), ""))
            if choice.get("finish_reason") is not None:
                self._finished = True
        if text:
            self.num_frames += 1
            if outcome.ttft_s is None:
                outcome.ttft_s = now_s - outcome.start_s
            else:
                outcome.itls_s.append(now_s - self._last_s)
        if text or self._finished:
            self._last_s = now_s

    def _whole(self) -> None:
        outcome = self.outcome
        outcome.latency_s = self._last_s - outcome.start_s
        try:
            body = orjson.loads(self._body)
            choice = body["choices"][0]
            if usage := body.get("usage"):
                self._usage(usage)
            if self._keep_text:
                outcome.text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as exc:
            self.fail("malformed", f"{type(exc).__name__} in {bytes(self._body[:80])!r}")

    def _usage(self, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        found = {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage.get("completion_tokens"),
            "cached_tokens": details.get("cached_tokens"),
        }
        for name, value in found.items():
            if value is None and name != "prompt_tokens":
                found[name] = 0
            elif type(value) is not int or not 0 <= value < MAX_TOKENS:  # a bool is an int, too
                self.fail("malformed", f"No number of tokens in usage: {name} is {str(value)[:80]!r}")
                return
        outcome = self.outcome
        outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens = found.values()


class UsageOnly(Answer):
    """Of an answer nothing but its usage is read, at its end: where the client runs on the cores that are measured, as
    reading each frame takes 30 us of one a token. Its outcome has no TTFT and no gaps.
    """

    __slots__ = ()

    def feed(self, data: bytes, now_s: float) -> None:
        self._rest = (self._rest + data)[-USAGE_WITHIN:]
        self._last_s = now_s

    def end(self) -> None:
        if self.outcome.failure is not None:
            return
        self.outcome.latency_s = self._last_s - self.outcome.start_s
        if self.outcome.status != 200:
            self.fail("status", self._rest[:MAX_MESSAGE].decode(errors="replace"))
            return
        frames = [line for line in self._rest.split(b"\n") if line.startswith(b'data: {"')]
        if frames:
            self._event(frames[-1][5:].strip(), self._last_s)
        if self.outcome.output_tokens is None:
            self.fail("cut", "The stream ended without usage.")
