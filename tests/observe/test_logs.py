"""Log lines as an operator's collector gets them: every line parses, ids are on it, content never."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
import structlog
from pydantic import BaseModel, ValidationError

from forebay.errors import ConfigurationError
from forebay.observe.logs import configure_logging, flush_logs, log_request
from forebay.observe.record import RequestRecord
from forebay.settings import Settings
from forebay.types import Usage
from support.server import ServerProcess
from support.wire import eventually

Configure = Callable[..., Callable[[], list[dict[str, Any]]]]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """`configure(**settings)` sends logs into a pipe; what it returns reads the lines so far."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    root = logging.getLogger()
    before = (root.level, list(root.handlers))

    def start(**settings: Any) -> Callable[[], list[dict[str, Any]]]:
        configure_logging(Settings(**{"log_format": "json", **settings}), fd=writer)

        def read() -> list[dict[str, Any]]:
            flush_logs()
            return [json.loads(line) for line in os.read(reader, 1 << 20).splitlines()]

        return read

    yield start
    for handler in [handler for handler in root.handlers if handler not in before[1]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[0])
    logging.captureWarnings(False)
    structlog.reset_defaults()
    os.close(reader)
    os.close(writer)


def record(**fields: Any) -> RequestRecord:
    made = RequestRecord("req-1", "POST", route="/v1/chat/completions", status=200, started=100.0, **fields)
    made.ended = 101.5
    return made


def test_our_lines_and_those_of_libraries_look_alike(configure: Configure) -> None:
    """structlog's and the standard library's loggers end in the same JSON: time, level, logger, event."""
    read = configure()
    structlog.get_logger("ours").warning("something_happened", number=3)
    logging.getLogger("theirs").warning("it is %s", "so")
    ours, theirs = read()
    assert ours.items() >= {"level": "warning", "logger": "ours", "event": "something_happened", "number": 3}.items()
    assert theirs.items() >= {"level": "warning", "logger": "theirs", "event": "it is so"}.items()
    assert ours["timestamp"].endswith("+00:00")


def test_lines_say_when_in_milliseconds(configure: Configure) -> None:
    """In UTC, also across the turn of a second."""
    read = configure()
    began = time.time_ns() // 1_000_000
    for _ in range(12):
        structlog.get_logger("ours").info("tick")
        time.sleep(0.1)
    times = [line["timestamp"] for line in read()]
    assert times == sorted(times)
    assert {len(stamp) for stamp in times} == {len("2026-01-31T12:00:00.000+00:00")}
    told = [round(datetime.fromisoformat(stamp).timestamp() * 1000) - began for stamp in times]
    assert all(100 * number <= late <= 100 * number + 500 for number, late in enumerate(told)), told


def test_bound_context_is_on_every_line(configure: Configure) -> None:
    """What is logged while a request runs carries its id, whichever logger says it."""
    read = configure()
    with structlog.contextvars.bound_contextvars(request_id="req-7"):
        structlog.get_logger("ours").info("one")
        logging.getLogger("theirs").info("two")
    structlog.get_logger("ours").info("three")
    assert [line.get("request_id") for line in read()] == ["req-7", "req-7", None]


def test_the_request_line_holds_ids_tokens_and_times(configure: Configure) -> None:
    """Durations in milliseconds, measured from the record."""
    read = configure()
    finished = record(
        usage=Usage(7, 5, cached_tokens=2, reasoning_tokens=1),
        tenant="default",
        key_id="abc",
        queue_s=0.01,
        prefill_s=0.02,
        decode_s=0.4,
    )
    finished.first_token, finished.last_token = 100.25, 100.65
    log_request(finished)
    (line,) = read()
    line.pop("timestamp")
    assert line == {
        "level": "info",
        "logger": "forebay.request",
        "event": "request",
        "request_id": "req-1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "tenant": "default",
        "key_id": "abc",
        "stream": False,
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "cached": 2,
        "reasoning": 1,
        "ttft_ms": 250.0,
        "tpot_ms": 100.0,
        "queue_ms": 10.0,
        "prefill_ms": 20.0,
        "decode_ms": 400.0,
        "duration_ms": 1500.0,
    }


def test_the_request_line_says_where_the_engine_spent_its_time(server: ServerProcess) -> None:
    """Waiting for a slot, until the first token, and from there to the last."""
    metadata = {"forebay_script": "a b c d", "forebay_first_token_ms": "60", "forebay_inter_token_ms": "20"}
    body = {"messages": [{"role": "user", "content": "x"}], "metadata": metadata}
    answer = httpx.post(f"{server.base_url}/chat/completions", json=body)
    assert answer.status_code == 200
    lines = eventually(lambda: [line for line in server.log.splitlines() if answer.headers["x-request-id"] in line])
    line = json.loads(lines[-1])
    assert line["queue_ms"] < 60
    assert line["prefill_ms"] >= 60
    assert line["decode_ms"] >= 60
    assert line["queue_ms"] + line["prefill_ms"] + line["decode_ms"] <= line["duration_ms"]


def test_what_is_not_known_is_left_out(configure: Configure) -> None:
    """A refused request has no tokens and no model: no nulls in its place."""
    read = configure()
    log_request(record(outcome="refused", error_code="invalid_value"))
    (line,) = read()
    assert None not in line.values()
    assert "prompt_tokens" not in line
    assert line["error_code"] == "invalid_value"


def test_levels_are_respected(configure: Configure) -> None:
    """Below the set level nothing is written, of ours and of others."""
    read = configure(log_level="warning")
    structlog.get_logger("ours").info("quiet")
    logging.getLogger("theirs").info("quiet")
    log_request(record())
    structlog.get_logger("ours").error("loud")
    assert [line["event"] for line in read()] == ["loud"]


def test_good_probes_are_debug_lines_and_bad_ones_are_not(configure: Configure) -> None:
    """A kubelet that asks every second does not fill the log; a failing probe is seen."""
    read = configure()
    for status in (200, 503):
        probe = RequestRecord("p", "GET", route="/ready", status=status)
        log_request(probe)
    assert [line["status"] for line in read()] == [503]


def test_text_that_is_no_unicode_still_makes_a_line(configure: Configure) -> None:
    """A lone surrogate, an integer beyond 64 bits, bytes and objects are written somehow, never lost."""
    read = configure()
    structlog.get_logger("ours").info("odd", text="\ud800", number=2**70, data=b"x", thing=object())
    (line,) = read()
    assert line["text"] == "\ud800"
    assert line["number"] == 2**70


def test_a_malformed_log_call_does_not_fail_its_caller(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that formats wrongly, or raises what cannot be shown, goes on; a line says where, without arguments."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    read = configure()
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[-1:])  # pytest's own raise
    logging.getLogger("theirs").warning("%d", "".join(("can", "ary")))
    try:
        raise Mute
    except Mute:
        logging.getLogger("theirs").exception("failed")
    lines = read()
    assert [(line["event"], line["error"]) for line in lines] == [
        ("malformed_log_call", "TypeError"),
        ("malformed_log_call", "ValueError"),
    ]
    assert all(line["at"].startswith("test_logs:") for line in lines)
    assert "canary" not in json.dumps(lines)


def test_tracebacks_do_not_quote_requests(configure: Configure) -> None:
    """Validation errors quote their input: their frames are logged, their message is not, in a chain or group too."""

    class Body(BaseModel):
        number: int

    read = configure()
    log = structlog.get_logger("ours")
    try:
        try:
            Body.model_validate({"number": "".join(("can", "ary"))})  # apart, as frames quote this line
        except ValidationError as exc:
            raise ExceptionGroup("several", [RuntimeError("disk full"), exc]) from exc
    except ExceptionGroup:
        log.exception("failed")
        logging.getLogger("theirs").exception("failed")
    lines = read()
    assert len(lines) == 2
    for line in lines:
        assert line["level"] == "error"
        assert "canary" not in json.dumps(line)
        assert "disk full" in line["exception"]
        assert "ValidationError" in line["exception"]
        assert "test_logs.py" in line["exception"]


def test_in_a_request_only_messages_about_the_machine_are_kept(configure: Configure) -> None:
    """Any library's message may hold a client's words; an operator still reads what failed here."""
    read = configure()
    with structlog.contextvars.bound_contextvars(request_id="req-7"):
        for error in (KeyError("canary"), RuntimeError("canary"), OSError("disk full"), ConfigurationError("no model")):
            structlog.get_logger("ours").error("failed", exc_info=error)
    lines = read()
    assert ["canary" in line["exception"] for line in lines] == [False] * 4
    assert [line["exception"].partition(": ")[2] for line in lines[2:]] == ["disk full", "no model"]
    assert lines[0]["exception"].startswith("builtins.KeyError")


def test_warnings_become_lines(configure: Configure) -> None:
    """Python's warnings are logged like the rest."""
    read = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
        logging.captureWarnings(False)
    assert "careful" in read()[0]["event"]


def test_console_lines_are_for_people(configure: Configure) -> None:
    """With `log_format=console` a line is text."""
    read = configure(log_format="console")
    structlog.get_logger("ours").info("something_happened", number=3)
    with pytest.raises(json.JSONDecodeError):
        read()


def test_configuring_again_moves_the_lines(configure: Configure) -> None:
    """The last configuration counts for loggers that are new to it; nothing is written twice."""
    configure()
    read = configure()
    logging.getLogger("theirs").info("once")
    assert len(read()) == 1
