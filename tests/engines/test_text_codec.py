"""Conversations through a model's own template, without an engine."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

transformers = pytest.importorskip("transformers", exc_type=ImportError)

# What follows needs Transformers to be there.
from forebay.engines.model_source import resolve_model  # noqa: E402
from forebay.engines.quick import NUM_TRIALS, SHORT_CHARS, SLOW_S  # noqa: E402
from forebay.engines.text_codec import TextCodec  # noqa: E402
from forebay.errors import InternalError, InvalidRequest  # noqa: E402
from forebay.settings import Settings  # noqa: E402
from forebay.types import Chat  # noqa: E402

MESSAGES = ({"role": "user", "content": "Where does the river go? 日本 😀"},)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    model = resolve_model(Settings(_env_file=None), lambda _: None)
    return transformers.AutoTokenizer.from_pretrained(model.path_or_id)


@pytest.fixture
def codec(tokenizer: Any) -> Iterator[TextCodec]:
    made = TextCodec(tokenizer, render_timeout_s=5.0)
    yield made
    made.close()


def with_template(tokenizer: Any, template: str | None, timeout_s: float = 5.0) -> TextCodec:
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return TextCodec(own, timeout_s)


@pytest.mark.parametrize(
    "chat",
    [
        Chat(MESSAGES),
        Chat(({"role": "system", "content": "Be brief."}, *MESSAGES)),
        Chat(MESSAGES, add_generation_prompt=False),
        Chat(
            (*MESSAGES, {"role": "assistant", "content": "To the"}),
            add_generation_prompt=False,
            continue_final_message=True,
        ),
    ],
    ids=["user", "system", "closed", "prefill"],
)
async def test_it_renders_what_transformers_renders(codec: TextCodec, tokenizer: Any, chat: Chat) -> None:
    """The token ids are those of `tokenizer.apply_chat_template`."""
    expected = tokenizer.apply_chat_template(
        list(chat.messages),
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        return_dict=True,
    )["input_ids"]
    assert list((await codec.render(chat)).token_ids) == expected


async def test_scalars_reach_the_template(tokenizer: Any) -> None:
    """What a client passes by `chat_template_kwargs` is a variable of the template."""
    codec = with_template(tokenizer, "{{ mood }}/{{ depth }}/{{ thinking }}")
    prompt = await codec.render(Chat(MESSAGES, template_kwargs={"mood": "calm", "depth": 2, "thinking": False}))
    assert prompt.text == "calm/2/False"


@pytest.mark.parametrize("kwargs", [{"tokenize": False}, {"chat_template": "x"}, {"mood": ["list"]}])
async def test_nothing_but_scalars_and_no_argument_of_ours(codec: TextCodec, kwargs: dict[str, Any]) -> None:
    """A template cannot be sent, nor an argument of the renderer overridden."""
    with pytest.raises(InvalidRequest) as refusal:
        await codec.render(Chat(MESSAGES, template_kwargs=kwargs))
    assert refusal.value.param == "chat_template_kwargs"


async def test_the_templates_own_refusal_is_told(tokenizer: Any) -> None:
    """What it raises by `raise_exception` is meant for who wrote the messages, cut to a sensible length."""
    codec = with_template(tokenizer, "{{ raise_exception('Roles must alternate' + '!' * 1000) }}")
    with pytest.raises(InvalidRequest) as refusal:
        await codec.render(Chat(MESSAGES))
    assert "Roles must alternate!" in refusal.value.message
    assert len(refusal.value.message) < 300
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("template", ["{{ messages[0].secret.path }}", "{{ 1 // 0 }}", "{{ messages[0] + 1 }}"])
async def test_errors_of_the_template_language_are_not_told(tokenizer: Any, template: str) -> None:
    """Whatever Jinja or Python raise is a refusal of the messages, in our words."""
    with pytest.raises(InvalidRequest) as refusal:
        await with_template(tokenizer, template).render(Chat(MESSAGES))
    assert refusal.value.message == "The model's chat template cannot render these messages."


async def test_rendering_has_a_deadline(tokenizer: Any) -> None:
    """A template that takes too long over the messages is given up in time, and says so."""
    slow = "{% for a in range(9999) %}{% for b in range(99) %}{{ '' }}{% endfor %}{% endfor %}"
    began = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"longer than 0\.05 s"):
        await with_template(tokenizer, slow, timeout_s=0.05).render(Chat(MESSAGES))
    assert time.monotonic() - began < 2


async def test_a_model_without_a_template_says_so(tokenizer: Any) -> None:
    """Its clients are sent to the completions route."""
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        await with_template(tokenizer, None).render(Chat(MESSAGES))


async def test_what_the_tokenizer_cannot_read_is_refused(codec: TextCodec) -> None:
    """Half of a surrogate pair, ids beyond 32 bits: a refusal, not a library's exception."""
    with pytest.raises(InvalidRequest, match="this text"):
        await codec.tokenize("half \ud83d", add_special_tokens=False)
    for outside in (-1, 1 << 40):
        with pytest.raises(InvalidRequest, match="these token ids"):
            await codec.detokenize([outside])


def watched(tokenizer: Any, seconds: dict[str, float]) -> tuple[TextCodec, list[str]]:
    """A codec that writes down in which thread it renders, and takes `seconds` of the CPU for a content."""
    own, threads = copy.deepcopy(tokenizer), []
    render = own.apply_chat_template

    def watch(conversation: Any, **kwargs: Any) -> str:
        threads.append(threading.current_thread().name)
        end = time.thread_time() + seconds.get(conversation[-1]["content"], 0.0)
        while time.thread_time() < end:
            pass
        return str(render(conversation, **kwargs))

    own.apply_chat_template = watch
    return TextCodec(own, 5.0), threads


async def test_short_conversations_wait_for_no_thread(tokenizer: Any) -> None:
    """Once a few have been rendered in next to no time, short ones are on the event loop; long ones never are."""
    codec, threads = watched(tokenizer, {})
    rendered = [(await codec.render(Chat(MESSAGES))).token_ids for _ in range(NUM_TRIALS + 3)]
    assert len(set(rendered)) == 1
    here = threading.current_thread().name
    assert threads[-2:] == [here, here]
    assert here not in threads[:NUM_TRIALS]
    long = ({"role": "user", "content": "water " * SHORT_CHARS},)
    for chat in (Chat(long), Chat(MESSAGES, template_kwargs={"mood": "x"}), Chat(MESSAGES * 41)):
        await codec.render(chat)
        assert threads[-1] != here
    codec.close()


async def test_a_template_that_holds_the_loop_up_does_so_once(tokenizer: Any) -> None:
    """From then on every conversation is rendered in a thread, where it has a deadline."""
    codec, threads = watched(tokenizer, {"slow": 2 * SLOW_S})
    for _ in range(NUM_TRIALS + 2):
        await codec.render(Chat(MESSAGES))
    here = threading.current_thread().name
    await codec.render(Chat(({"role": "user", "content": "slow"},)))
    assert threads[-1] == here
    for _ in range(NUM_TRIALS + 1):
        await codec.render(Chat(MESSAGES))
        assert threads[-1] != here
    codec.close()


@pytest.mark.parametrize("special", [False, True])
async def test_short_texts_are_read_as_transformers_reads_them(tokenizer: Any, special: bool) -> None:
    """By whichever way: special tokens in them, spaces, line breaks, characters of several bytes."""
    codec = TextCodec(tokenizer, 5.0)
    for text in ("", " a  b\n", "<|im_start|>x<|endoftext|>", "日本 😀 naïve", "\u0000\ufffd", "x" * (SHORT_CHARS + 1)):
        assert await codec.tokenize(text, special) == tokenizer.encode(text, add_special_tokens=special)
    codec.close()


async def test_a_tokenizer_that_adds_to_its_librarys_is_asked_itself(tokenizer: Any) -> None:
    """Some classes of Transformers change what the library's tokenizer makes of a text: then theirs counts."""
    own = copy.deepcopy(tokenizer)
    encode = own.encode
    own.encode = lambda text, **kwargs: [7, *encode(text, **kwargs)]
    codec = TextCodec(own, 5.0)
    assert (await codec.tokenize("The river", add_special_tokens=False))[0] == 7
    codec.close()


async def test_a_tokenizer_that_breaks_leaks_nothing(tokenizer: Any) -> None:
    """Whatever else it raises is an error of ours, without its words."""
    broken = copy.deepcopy(tokenizer)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /x")

    broken.encode = broken.decode = fail
    codec = TextCodec(broken, render_timeout_s=5.0)
    for call in (codec.tokenize("x", add_special_tokens=False), codec.detokenize([1])):
        with pytest.raises(InternalError) as raised:
            await call
        assert "/x" not in raised.value.message
    codec.close()
