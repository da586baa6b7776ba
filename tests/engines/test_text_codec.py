"""Conversations through a model's own template, without an engine."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest

transformers = pytest.importorskip("transformers", exc_type=ImportError)

# What follows needs Transformers to be there.
from forebay.engines.model_source import resolve_model  # noqa: E402
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
