"""Structured logs on standard error: one line an event, one `request` event a request, never content.

Ours go through structlog; those of libraries (uvicorn, vllm, transformers) through the standard logging module's root
handler into the same renderer. Nothing of a request but what `log_request` names may be logged: no prompt, answer,
header, query string or key. Tracebacks leave out messages that may quote a request.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
import structlog

from forebay.observe.line_sink import LineSink
from forebay.observe.record import PROBES, RequestRecord
from forebay.observe.tracebacks import describe_exception
from forebay.settings import Settings

Event = MutableMapping[str, Any]
Render = Callable[[Event], bytes]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

CHATTY_LOGGERS = ("uvicorn.error", "httpx", "httpcore", "huggingface_hub", "urllib3", "asyncio", "sse_starlette")
"""Their informational lines say what our own say better, or say every frame of a stream: warnings only."""


def configure_logging(settings: Settings, fd: int = 2) -> None:
    """Send every log line of this process to the descriptor `fd`.

    Call it before anything is logged: loggers keep the configuration of their first line.
    """
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    lines = _Lines(_console_renderer(sys.stderr.isatty()) if console else render_json, LEVELS[settings.log_level], fd)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _finish],
        wrapper_class=structlog.make_filtering_bound_logger(lines.level),
        logger_factory=lines,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _StandardHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(_StandardHandler(lines))
    root.setLevel(lines.level)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(lines.level, logging.WARNING))
    logging.captureWarnings(True)


def flush_logs() -> None:
    """Write what is queued; before the process is ended without its exit handlers."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def log_request(record: RequestRecord) -> None:
    """The line of one finished request. Durations are milliseconds; what is not known is left out."""
    usage = record.usage
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "client_request_id": record.client_request_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "outcome": record.outcome,
        "error_code": record.error_code,
        "replay_of": record.replay_of,
        "tenant": record.tenant,
        "key_id": record.key_id,
        "model": record.model,
        "stream": record.stream,
        "prompt_tokens": usage and usage.prompt_tokens,
        "completion_tokens": usage and usage.completion_tokens,
        "cached": usage and usage.cached_tokens,
        "reasoning": usage and usage.reasoning_tokens,
        "uncharged_tokens": record.uncharged_tokens or None,
        "finish_reason": record.finish_reason,
        "cache": record.cache,
        "cache_tier": record.cache_tier,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    for name, seconds in (
        ("ttft_ms", record.ttft_s),
        ("tpot_ms", record.tpot_s),
        ("queue_ms", record.queue_s),
        ("prefill_ms", record.prefill_s),
        ("decode_ms", record.decode_s),
        ("duration_ms", record.duration_s),
    ):
        if seconds is not None:
            known[name] = round(seconds * 1e6) / 1000
    level = "debug" if record.route in PROBES and record.status == 200 else "info"
    lines = structlog.get_config()["logger_factory"]
    if isinstance(lines, _Lines):
        # Past structlog's bound logger, which costs as much as all else of a request's line.
        if LEVELS[level] >= lines.level:
            lines.sink.write(lines.render(_head("forebay.request", level, "request") | known))
    else:
        getattr(structlog.get_logger("forebay.request"), level)("request", **known)


def render_json(event: Event) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # text that is not valid UTF-8 (lone surrogates), integers beyond 64 bits
        return json.dumps(event, default=str, separators=(",", ":")).encode()


def _console_renderer(colors: bool) -> Render:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=20)

    def render(event: Event) -> bytes:
        return renderer(None, "", event).encode("utf-8", "backslashreplace")

    return render


def _head(logger: str, level: str, event: Any) -> dict[str, Any]:
    """The fields every line begins with."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return {
        "timestamp": f"{_second(seconds)}.{milliseconds:03}+00:00",
        "level": level,
        "logger": logger,
        "event": event,
    }


@lru_cache(maxsize=2)
def _second(unix_s: int) -> str:
    """ISO 8601 in UTC; written once for all lines of that second."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _line(logger: str, level: str, event: Any, fields: Event) -> Event:
    """The head, the event's own fields, and its exception's traceback."""
    line = _head(logger, "error" if level == "exception" else level, event)
    line.update(fields)
    exc_info = line.pop("exc_info", None)
    if exc_info is not None and exc_info is not False:
        error = exc_info if isinstance(exc_info, BaseException) else _current(exc_info)
        if error is not None:
            line["exception"] = describe_exception(error, in_request="request_id" in line)
    return line


def _current(exc_info: object) -> BaseException | None:
    return exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]


class _Lines:
    """Where lines go and how they look; structlog's logger factory."""

    def __init__(self, render: Render, level: int, fd: int) -> None:
        self.render = render
        self.level = level
        self.sink = LineSink(fd, self._dropped)

    def __call__(self, name: str = "forebay") -> _Writer:
        return _Writer(name, self)

    def _dropped(self, num_lines: int) -> bytes:
        return self.render(_line("forebay.observe.logs", "error", "log_lines_dropped", {"num_lines": num_lines}))


class _Writer:
    """What structlog hands a finished line to: every level is the same descriptor."""

    def __init__(self, name: str, lines: _Lines) -> None:
        self.name = name
        self.render = lines.render
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = lines.sink.write


def _finish(logger: _Writer, method: str, fields: Event) -> tuple[tuple[bytes], dict[str, Any]]:
    """structlog's last processor: event fields -> the arguments of the writer's method."""
    return (logger.render(_line(logger.name, method, fields.pop("event", ""), fields)),), {}


class _StandardHandler(logging.Handler):
    """The standard logging module's records, rendered as ours."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        fields: Event = {**structlog.contextvars.get_contextvars(), "exc_info": record.exc_info}
        try:
            line = self._lines.render(_line(record.name, record.levelname.lower(), record.getMessage(), fields))
        except Exception as exc:
            # A library's mistake in a log call is not to fail its caller; the arguments may quote a request.
            del fields["exc_info"]
            fields.update(at=f"{record.module}:{record.lineno}", error=type(exc).__name__)
            line = self._lines.render(_line(record.name, "warning", "malformed_log_call", fields))
        self._lines.sink.write(line)

    def flush(self) -> None:
        self._lines.sink.flush()

    def close(self) -> None:
        self._lines.sink.close()
        super().close()
