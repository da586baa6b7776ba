"""Text to tokens and back by the model's own tokenizer and chat template, off the event loop unless it is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog

from forebay.engines.quick import SHORT_CHARS, Quick
from forebay.engines.threads import DaemonThreads
from forebay.engines.vocabulary import Vocabulary
from forebay.errors import InternalError, InvalidRequest, Overloaded
from forebay.types import Chat, Prompt

logger = structlog.get_logger(__name__)

T = TypeVar("T")

NUM_THREADS = 4
CHARS_A_MESSAGE = 50
"""As long as so many characters a template takes for a message without any."""
MOST_REASON = 200
"""Characters of a template's own refusal that reach the client."""

OWN_ARGUMENTS = frozenset(
    (
        "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize",
        "continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs",
    )
)  # fmt: skip
"""Of `apply_chat_template`: a template variable of the same name cannot be passed."""


SAMPLES = ("", " The river  is\n\n10 km away.", "\tnaïve Größe 東京 🚀", "<|im_start|>user\nYes<|im_end|>\n")
"""On which the library's tokenizer must say what Transformers makes of it."""

REFUSALS = (TypeError, UnicodeError, OverflowError)
"""What `tokenizers` raises for text that has no UTF-8 (half a surrogate pair) and for ids beyond 32 bits."""


class TextCodec:
    """Encodes, decodes and renders with one Transformers tokenizer, which must not be used elsewhere meanwhile."""

    def __init__(self, tokenizer: Any, render_timeout_s: float) -> None:
        self._tokenizer = tokenizer
        self._backend = _backend_of(tokenizer)
        self.vocabulary = Vocabulary(tokenizer)
        self._render_timeout_s = render_timeout_s
        self._threads = DaemonThreads(NUM_THREADS, "text")
        self._quick = Quick()

    @property
    def chat_template(self) -> str | None:
        template = self._tokenizer.chat_template
        return template if isinstance(template, str) else None

    async def render(self, chat: Chat) -> Prompt:
        """The prompt `transformers` renders for these messages.

        Raises InvalidRequest if the model has no template, the template refuses the messages or takes too long,
        Overloaded if it could not begin.
        """
        if not self._tokenizer.chat_template:
            raise InvalidRequest("This model has no chat template: use /v1/completions.", param="messages")
        for name, value in chat.template_kwargs.items():
            if name in OWN_ARGUMENTS or not isinstance(value, str | int | float | bool | None):
                raise InvalidRequest(f"{name!r} cannot be passed to the chat template.", param="chat_template_kwargs")
        num_chars = _num_chars(chat)
        if self._quick.may_read(num_chars):
            return self._render(chat, num_chars)
        rendering = await self._begin(partial(self._render, chat, num_chars))
        try:
            async with asyncio.timeout(self._render_timeout_s):
                return await rendering
        except TimeoutError:
            raise InvalidRequest(
                f"Rendering these messages took longer than {self._render_timeout_s:g} s.", param="messages"
            ) from None

    async def tokenize(self, text: str, add_special_tokens: bool) -> list[int]:
        if self._quick.may_read(len(text)):
            return self._read(text, add_special_tokens)
        return await (await self._begin(partial(self._read, text, add_special_tokens)))

    async def detokenize(self, token_ids: list[int]) -> str:
        return await (await self._begin(partial(self._decode, token_ids)))

    def close(self) -> None:
        self._threads.close()

    async def _begin(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """`call` in a thread. Raises Overloaded if none is free for as long as a rendering may take."""
        try:
            async with asyncio.timeout(self._render_timeout_s):
                return await self._threads.begin(call)
        except TimeoutError:
            raise Overloaded(
                "The server is busy reading other requests' texts.", retry_after_s=self._render_timeout_s
            ) from None

    def _read(self, text: str, add_special_tokens: bool) -> list[int]:
        with self._quick.trial(len(text)):
            return self._encode(text, add_special_tokens)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        with _translated("The tokenizer cannot read this text."):
            token_ids: list[int]
            if self._backend is not None and len(text) <= SHORT_CHARS:
                token_ids = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
            else:
                token_ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return token_ids

    def _decode(self, token_ids: list[int]) -> str:
        with _translated("The tokenizer cannot read these token ids."):
            text: str = self._tokenizer.decode(token_ids)
        return text

    def _render(self, chat: Chat, num_chars: int) -> Prompt:
        with self._quick.trial(num_chars):
            try:
                text: str = self._tokenizer.apply_chat_template(
                    [dict(message) for message in chat.messages],
                    tokenize=False,
                    add_generation_prompt=chat.add_generation_prompt,
                    continue_final_message=chat.continue_final_message,
                    **chat.template_kwargs,
                )
            except Exception as exc:  # templates are programs: what they raise on messages is anything
                logger.info("chat_template_failed", kind=type(exc).__name__)
                raise InvalidRequest(_refusal(exc), param="messages") from exc
            return Prompt(tuple(self._encode(text, add_special_tokens=False)), text)


def _backend_of(tokenizer: Any) -> Any:
    """The library's tokenizer inside Transformers', for short texts: 26 us for a hundred characters in place of 38,
    since Transformers has every text read as a batch, in a pool of threads. None where there is none, or one that does
    not say the same by itself.

    It keeps the interpreter's lock, so long texts are not for it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or getattr(tokenizer, "split_special_tokens", False):
        return None
    try:
        backend.no_truncation()
        backend.no_padding()
        texts = [*SAMPLES, "".join(map(str, tokenizer.all_special_tokens))]
        for text in texts:
            for special in (False, True):
                alone = backend.encode(text, add_special_tokens=special).ids
                if alone != tokenizer.encode(text, add_special_tokens=special):
                    return None
    except Exception as exc:  # one that fails here fails on requests, too, which are told of it
        logger.info("tokenizer_failed_on_samples", kind=type(exc).__name__)
        return None
    return backend


@contextmanager
def _translated(refusal: str) -> Iterator[None]:
    """Raises our errors for the tokenizer's, with `refusal` where it was given what it cannot take."""
    try:
        yield
    except REFUSALS as exc:
        raise InvalidRequest(refusal) from exc
    except Exception as exc:
        logger.exception("tokenizer_failed", kind=type(exc).__name__)
        raise InternalError("The model's tokenizer failed on this request.") from exc


def _num_chars(chat: Chat) -> int:
    """What there is to be read, and something for each message; variables are read in ways of their own."""
    chars = [len(part) for message in chat.messages for part in message.values() if isinstance(part, str)]
    return SHORT_CHARS + 1 if chat.template_kwargs else sum(chars) + CHARS_A_MESSAGE * len(chat.messages)


def _refusal(error: Exception) -> str:
    """The template's own words where it refuses by `raise_exception`; Jinja's and Python's are not for the client."""
    from jinja2 import TemplateError

    if type(error) is TemplateError and error.message:
        return f"The model's chat template refused the messages: {error.message[:MOST_REASON]}"
    return "The model's chat template cannot render these messages."
