"""An answer by itself: what usage may say, a last line without its newline, and what comes before the final status."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from forebay.bench.answer import MAX_TOKENS, Answer, UsageOnly
from forebay.bench.client import Client, Target
from forebay.bench.outcome import Outcome
from support.broken_server import DONE, FRAME, LAST, STREAM, USAGE, Handler, says, serving

EVENTS = {b"content-type": b"text/event-stream"}
WRONG = [1e308, 2**64 - 1, MAX_TOKENS, -1, True, 2.0, "2", [2]]
NAMES = ["prompt_tokens", "completion_tokens", "cached_tokens"]


def usage_with(name: str, value: Any) -> dict[str, Any]:
    usage: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    (usage["prompt_tokens_details"] if name == "cached_tokens" else usage)[name] = value
    return usage


def streamed(answer: Answer, *pieces: bytes) -> Outcome:
    """One second between pieces, from 1 on."""
    answer.head(200, EVENTS)
    for at, piece in enumerate(pieces, 1):
        answer.feed(piece, float(at))
    answer.end()
    return answer.outcome


async def ask(handle: Handler) -> Outcome:
    async with serving(handle) as url:
        client = Client(Target(url, timeout_s=5.0))
        try:
            return await client.ask({"stream": True}, keep_text=True)
        finally:
            client.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", WRONG)
def test_usage_that_is_no_number_of_tokens_is_not_believed(name: str, value: Any) -> None:
    """Too large, negative, no integer: the answer has failed, in a stream and whole, and no exception ends the run."""
    usage = usage_with(name, value)
    frame = b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"
    whole = Answer(Outcome())
    whole.head(200, {})
    whole.feed(orjson.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}), 1.0)
    whole.end()
    outcomes = [streamed(kind(Outcome()), FRAME, LAST, frame, DONE) for kind in (Answer, UsageOnly)]
    for outcome in (*outcomes, whole.outcome):
        assert outcome.failure == "malformed", outcome
        assert name in outcome.message
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (None, None, 0)


@pytest.mark.parametrize("value", [0, MAX_TOKENS - 1])
def test_usage_is_believed_up_to_what_json_holds(value: int) -> None:
    """Nought and the largest number; what is null counts as nought, but for the prompt's."""
    for name in NAMES:
        frame = b"data: " + orjson.dumps({"choices": [], "usage": usage_with(name, value)}) + b"\n\n"
        outcome = streamed(Answer(Outcome()), FRAME, LAST, frame, DONE)
        assert outcome.failure is None
        assert value in (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens)
    nulls = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":null,"prompt_tokens_details":null}}\n\n'
    outcome = streamed(Answer(Outcome()), FRAME, LAST, nulls, DONE)
    assert (outcome.failure, outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (None, 3, 0, 0)


@pytest.mark.parametrize("framed", [False, True])
async def test_the_last_line_may_lack_its_newline(framed: bool) -> None:
    """The stream ends with its usage, by close or by content-length: its tokens count."""
    body = FRAME + LAST + USAGE.rstrip()
    head = STREAM.replace(b"\r\n\r\n", b"\r\ncontent-length: %d\r\n\r\n" % len(body)) if framed else STREAM
    outcome = await ask(says(head + body))
    assert (outcome.failure, outcome.prompt_tokens, outcome.output_tokens) == (None, 3, 2), outcome


def test_a_last_line_without_newline_is_timed_by_its_arrival() -> None:
    """A choice in it, which ends the answer, came with the last piece."""
    outcome = streamed(Answer(Outcome(), keep_text=True), FRAME, LAST.rstrip()[:-5], LAST.rstrip()[-5:])
    assert (outcome.failure, outcome.latency_s) == (None, 3.0)
    outcome = streamed(Answer(Outcome()), FRAME, b"data: [DONE]")
    assert outcome.failure is None


def test_a_stream_that_breaks_off_within_a_line_was_cut() -> None:
    """It is no server that writes wrong JSON."""
    outcome = streamed(Answer(Outcome()), FRAME, LAST, USAGE.rstrip()[:-5])
    assert (outcome.failure, outcome.message) == ("cut", "The stream ended within a line.")


@pytest.mark.parametrize("interim", [b"100 Continue", b"103 Early Hints\r\nlink: </a>", b"102 Processing"])
async def test_an_interim_answer_is_not_the_final_one(interim: bytes) -> None:
    """Whatever pieces it comes in; what follows it is the answer, with its own headers and framing."""
    before = b"HTTP/1.1 " + interim + b"\r\n\r\n"
    body = FRAME + LAST + USAGE + DONE
    final = STREAM.replace(b"\r\n\r\n", b"\r\ncontent-length: %d\r\n\r\n" % len(body)) + body
    for handle in (says(before + final), says(before, before, final), says(before + STREAM + body)):
        outcome = await ask(handle)
        assert (outcome.failure, outcome.status, outcome.output_tokens) == (None, 200, 2), outcome
        assert outcome.text == "ab"


async def test_an_interim_answer_alone_is_none() -> None:
    """The connection ends before the final one."""
    outcome = await ask(says(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert (outcome.failure, outcome.status) == ("reset", 0)
