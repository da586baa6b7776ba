"""`stream_options`: usage in a stream, and padding against those who watch packet sizes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.sse import DONE, read_chunks, read_frames

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Where does the water go?"}]},
    "/v1/completions": {"prompt": "The water"},
}
each_route = pytest.mark.parametrize("path", ROUTES)


def post(raw: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return raw.post(path, json={"model": "scripted", **ROUTES[path], **fields})


@each_route
@pytest.mark.parametrize("num_choices", [1, 3])
def test_usage_comes_last_with_no_choices(raw: httpx.Client, path: str, num_choices: int) -> None:
    """`include_usage`: null on every chunk, then one chunk with `choices: []` and the usage of the whole answer."""
    fields = {"seed": 4, "max_tokens": 25, "n": num_choices}
    *chunks, last = read_chunks(post(raw, path, stream=True, stream_options={"include_usage": True}, **fields))
    assert chunks
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["id"] == chunks[0]["id"]
    assert last["object"] == chunks[0]["object"]
    whole = post(raw, path, **fields).json()["usage"]
    assert last["usage"].keys() == whole.keys()
    for key in ("prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"):
        assert last["usage"][key] == whole[key]


@each_route
def test_no_usage_unless_asked_for(raw: httpx.Client, path: str) -> None:
    """Without the option no chunk knows of usage."""
    for options in (None, {}, {"include_usage": False}):
        chunks = read_chunks(post(raw, path, stream=True, stream_options=options, max_tokens=3))
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


@each_route
@pytest.mark.parametrize("include", [{}, {"include_usage": True}], ids=["alone", "with usage"])
def test_continuous_usage_grows_to_the_whole(raw: httpx.Client, path: str, include: dict[str, bool]) -> None:
    """`continuous_usage_stats`: each chunk says what was generated so far, and one more the whole of it."""
    options = {"continuous_usage_stats": True, **include}
    fields = {"max_tokens": 12, "ignore_eos": True, "metadata": {"forebay_burst": "1", "forebay_inter_token_ms": "1"}}
    *chunks, last = read_chunks(post(raw, path, stream=True, stream_options=options, **fields))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == last["usage"]["completion_tokens"] == 12
    assert len(set(counts)) > 2
    assert len({chunk["usage"]["prompt_tokens"] for chunk in (*chunks, last)}) == 1
    assert all(
        chunk["usage"]["total_tokens"] == chunk["usage"]["prompt_tokens"] + chunk["usage"]["completion_tokens"]
        for chunk in (*chunks, last)
    )


@each_route
@pytest.mark.parametrize("options", [{}, {"include_usage": True}], ids=["bare", "with usage"])
def test_obfuscated_chunks_have_quantised_lengths(raw: httpx.Client, path: str, options: dict[str, bool]) -> None:
    """`include_obfuscation` (Whisper Leak, arXiv:2511.03675): a frame's length tells nothing finer than 64 bytes."""
    fields = {"max_tokens": 60, "ignore_eos": True, "metadata": {"forebay_burst": "1", "forebay_inter_token_ms": "1"}}
    answer = post(raw, path, stream=True, stream_options={"include_obfuscation": True, **options}, **fields)
    chunks = [chunk for chunk in read_chunks(answer) if chunk["choices"]]
    frames = [frame for frame in read_frames(answer) if b'"choices":[{' in frame]
    assert len(frames) == len(chunks)
    assert len(chunks) > 20
    assert all(len(frame) % 64 == 0 for frame in frames)
    assert all(chunk["obfuscation"] for chunk in chunks)
    assert len({chunk["obfuscation"] for chunk in chunks}) == len(chunks)


@each_route
def test_chunks_are_not_padded_unless_asked_for(raw: httpx.Client, path: str) -> None:
    """Padding costs bytes, so nobody gets it who did not ask."""
    chunks = read_chunks(post(raw, path, stream=True, max_tokens=3))
    assert all("obfuscation" not in chunk for chunk in chunks)


@each_route
@pytest.mark.parametrize("stream", [None, False])
def test_stream_options_need_a_stream(raw: httpx.Client, path: str, stream: bool | None) -> None:
    """`stream_options` beside a whole answer is refused by name."""
    answer = post(raw, path, stream=stream, stream_options={"include_usage": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream_options"


@each_route
def test_an_unknown_stream_option_is_refused(raw: httpx.Client, path: str) -> None:
    """Options of a later API are not silently dropped."""
    answer = post(raw, path, stream=True, stream_options={"include_weather": True})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "stream_options.include_weather")
    assert DONE not in answer.text
