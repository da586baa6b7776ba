"""Rendering a chat template ends in time, whatever the messages do to it: CVE-2025-61620, CVE-2026-115911."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from forebay.errors import InvalidRequest, Overloaded
from forebay.types import Chat

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

SLOW = "{% for i in range(9999) %}{% for j in range(messages | length) %}{% endfor %}{% endfor %}"
"""Its time grows with the conversation, as that of quadratic templates in the wild does."""


async def test_a_slow_template_is_given_up() -> None:
    """The request is refused at the deadline, the event loop goes on meanwhile, and the next request is rendered."""
    from forebay.engines.text_codec import TextCodec

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hi": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    tokenizer.chat_template = SLOW + "{{ messages[0]['content'] }}"
    tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)  # its imports take seconds
    text = TextCodec(tokenizer, render_timeout_s=1.0)
    message = {"role": "user", "content": "hi"}
    try:
        assert (await text.render(Chat((message,)))).token_ids == (0,)
        began = time.monotonic()
        with pytest.raises(InvalidRequest, match=r"longer than 1 s") as refusal:
            await text.render(Chat((message,) * 15_000))
        assert time.monotonic() - began < 4
        assert refusal.value.param == "messages"
        assert (await text.render(Chat((message,)))).token_ids == (0,)
    finally:
        text.close()


async def test_whoever_waits_for_slow_ones_did_nothing_wrong() -> None:
    """With every thread busy a short conversation is told to come back, and not that its messages are at fault."""
    from forebay.engines.text_codec import NUM_THREADS, TextCodec

    release = threading.Event()

    class Held(transformers.PreTrainedTokenizerFast):
        def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> str:
            if conversation[0]["content"] == "slow":
                release.wait(30)
            return "hi"

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hi": 0, "[UNK]": 1}, unk_token="[UNK]"))
    text = TextCodec(Held(tokenizer_object=words, unk_token="[UNK]", chat_template="x"), render_timeout_s=0.3)
    quick, slow = (Chat(({"role": "user", "content": content},)) for content in ("hi", "slow"))
    try:
        busy = [asyncio.create_task(text.render(slow)) for _ in range(NUM_THREADS)]
        await asyncio.sleep(0.05)
        for waiting in (text.render(quick), text.tokenize("hi", True), text.detokenize([0])):
            with pytest.raises(Overloaded) as refusal:
                await waiting
            assert refusal.value.retry_after_s == 0.3
        for given_up in await asyncio.gather(*busy, return_exceptions=True):
            assert isinstance(given_up, InvalidRequest)
        release.set()
        assert (await text.render(quick)).token_ids == (0,)
    finally:
        release.set()
        text.close()
