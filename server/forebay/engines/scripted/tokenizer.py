"""Text to the scripted engine's tokens and back, at once or token by token."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from forebay.engines.scripted.vocabulary import (
    FIRST_PIECE,
    IM_END,
    IM_START,
    PIECES,
    PLAIN,
    SPECIALS,
    TOKEN_BYTES,
)
from forebay.types import Message

_UNIT = re.compile(r" ?[A-Za-z]+|\n\n|.", re.DOTALL)
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIALS.values())) + ")")
_PIECE_IDS = {piece: token for token, piece in enumerate(PIECES, FIRST_PIECE)}
_SPECIAL_IDS = {name: token for token, name in SPECIALS.items()}
_plain_text = PLAIN.__getitem__
_END_IDS, _END = (IM_END, ord("\n")), f"{SPECIALS[IM_END]}\n"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""What `render_chat` does, in Jinja, for those who look at a model's template."""


def encode_plain(text: str) -> list[int]:
    """Token ids of `text`, in which names of special tokens are ordinary characters."""
    ids: list[int] = []
    for unit in _UNIT.findall(text):
        piece = _PIECE_IDS.get(unit)
        if piece is not None:
            ids.append(piece)
        else:
            ids.extend(unit.encode())
    return ids


def encode(text: str) -> list[int]:
    """Token ids of `text`, with the names of special tokens read as those tokens."""
    ids: list[int] = []
    for part in _SPECIAL.split(text):
        special = _SPECIAL_IDS.get(part)
        if special is not None:
            ids.append(special)
        else:
            ids.extend(encode_plain(part))
    return ids


def decode(token_ids: Iterable[int]) -> str:
    """Special tokens appear by name; bytes that are no UTF-8 become U+FFFD."""
    return b"".join([TOKEN_BYTES[token] for token in token_ids]).decode("utf-8", "replace")


def render_chat(
    messages: Sequence[Message], add_generation_prompt: bool, continue_final_message: bool
) -> tuple[list[int], str]:
    """(token ids, text) of a conversation in ChatML. What a message says cannot become a special token."""
    ids: list[int] = []
    text: list[str] = []
    for number, message in enumerate(messages):
        header_ids, header = _header(message["role"])
        content = message.get("content") or ""
        ids += header_ids
        ids += encode_plain(content)
        text += (header, content)
        if not (continue_final_message and number == len(messages) - 1):
            ids += _END_IDS
            text.append(_END)
    if add_generation_prompt and not continue_final_message:
        header_ids, header = _header("assistant")
        ids += header_ids
        text.append(header)
    return ids, "".join(text)


@lru_cache(16)
def _header(role: str) -> tuple[tuple[int, ...], str]:
    """(token ids, text) of what stands before the content of a message of `role`."""
    return (IM_START, *encode_plain(f"{role}\n")), f"{SPECIALS[IM_START]}{role}\n"


class TextStream:
    """Decodes as tokens come; a character is released when its last byte is there, and never in part.

    Bytes that can never become a character turn into U+FFFD as in `decode`; one unfinished at the end is dropped.
    """

    __slots__ = ("_decoder", "_skip_special")

    def __init__(self, skip_special_tokens: bool) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        """There while a character is unfinished."""
        self._skip_special = skip_special_tokens

    def push(self, token_ids: Sequence[int]) -> str:
        if self._decoder is None:
            try:
                return "".join(map(_plain_text, token_ids))
            except KeyError:
                pass
        return "".join([self._decode(token) for token in token_ids])

    def _decode(self, token: int) -> str:
        if self._decoder is None and token in PLAIN:
            return PLAIN[token]
        if self._skip_special and token in SPECIALS:
            return ""
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._decoder.decode(TOKEN_BYTES[token])
        if not self._decoder.getstate()[0]:
            self._decoder = None
        return text


def token_text(token: int) -> str:
    """A token by itself; a part of a character shows as U+FFFD."""
    return TOKEN_BYTES[token].decode("utf-8", "replace")
