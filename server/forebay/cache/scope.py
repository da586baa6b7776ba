"""Two keys of a question: its scope, inside which alone an answer may be looked for, and the very same question."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from functools import lru_cache
from operator import attrgetter
from typing import Any

from forebay.cache.normal_form import normalised
from forebay.engines.base import EngineInfo
from forebay.types import Chat, Prompt, Sampling
from forebay.values import value

FORMAT = 2
"""Of what keys are made from. A new one leaves everything behind that was stored under an older."""

KEY_CHARS = 32
"""HMAC-SHA256 cut to 128 bits (RFC 2104, 5), in hexadecimal."""

GROUP = "group:"

_UNSCOPED = frozenset({"max_tokens", "num_logprobs"})
"""Of `Sampling`: the first is what the prompt leaves of the context where the client sets none, so what was asked for
stands in its place; answers with the second are never stored."""

_CHANCE = frozenset({"seed", "top_p", "top_k", "min_p"})
"""A greedy choice depends on nothing that shapes chance."""

_DRAWN = tuple(field.name for field in fields(Sampling) if field.name not in _UNSCOPED)
_GREEDY = tuple(name for name in _DRAWN if name not in _CHANCE)
_SHAPES = {greedy: (names, attrgetter(*names)) for greedy, names in ((False, _DRAWN), (True, _GREEDY))}
"""By whether the choice is greedy: which fields count, also those that will be added later, and what reads them."""

_BIAS = "logit_bias"
_HASHABLE = {greedy: attrgetter(*[name for name in names if name != _BIAS]) for greedy, (names, _) in _SHAPES.items()}
"""Reads the same but for the one that is a mapping."""

MAX_OWNERS = 4096


@value
class Question:
    """What a client asks for. `text` is what may be matched; `rest` is all else that its answer depends on, as
    canonical JSON."""

    text: str
    rest: str


@value
class Keys:
    """`scope`: same tenant or sharing group, model, earlier turns, parameters, epoch. `exact`: the same text, too."""

    scope: str
    exact: str


def chat_question(
    chat: Chat, sampling: Sampling, *, max_tokens: int | None, include_reasoning: bool = True
) -> Question | None:
    """Of canonical messages (`chat.messages.to_chat`): the text is the last one's, the user's; None where it is not.

    `max_tokens`: what the client asked for, if anything. What begins the answer already is no question, either.
    """
    last = chat.messages[-1]
    if last["role"] != "user" or chat.continue_final_message:
        return None
    text = _plain(last["content"])
    if len(chat.messages) == 1 and len(last) == 2 and not chat.template_kwargs and not sampling.logit_bias:
        greedy = sampling.temperature == 0.0
        return Question(
            text,
            _first_turn(chat.add_generation_prompt, include_reasoning, greedy, _HASHABLE[greedy](sampling), max_tokens),
        )
    rest = {
        "route": "chat",
        "earlier": chat.messages[:-1],
        "last": {key: value for key, value in last.items() if key != "content"},
        "add_generation_prompt": chat.add_generation_prompt,
        "template_kwargs": dict(chat.template_kwargs),
        "include_reasoning": include_reasoning,
        "sampling": _parameters(sampling, max_tokens),
    }
    return Question(text, _canonical(rest))


def completion_question(prompt: Prompt, sampling: Sampling, *, max_tokens: int | None) -> Question | None:
    """Of a prompt given as text; None for one given as token ids.

    The model goes on where the text stops, so spaces at its ends count.
    """
    if prompt.text is None:
        return None
    rest = {"route": "completion", "sampling": _parameters(sampling, max_tokens)}
    return Question(normalised("NFC", prompt.text), _canonical(rest))


def model_of(info: EngineInfo, *, adapter: str | None = None, family: str | None = None) -> str:
    """What answers, as canonical JSON: model, revision, adapter, template and the reasoning family that splits answers.

    A template that asks for the date puts it into every prompt, so then the day is a part.
    """
    template = info.chat_template or ""
    day = date.today().isoformat() if "strftime_now" in template else None
    return _model(info.model_id, info.revision, adapter, template, family, day)


class ScopeKeys:
    """Makes keys. They cannot be guessed without the secret, nor one tenant's from another's."""

    def __init__(
        self, secret: bytes, *, epoch: int = 0, groups: Mapping[str, str] | None = None, embedder: str = ""
    ) -> None:
        """`groups`: of each tenant that shares, the name of the group whose answers it shares. `embedder`: what makes
        the vectors that are compared in a scope; another one's are in another. The exact key does not depend on it."""
        self._scope_secret = derived(secret, "scope")
        self._exact_secret = derived(secret, "exact")
        self._groups = groups or {}
        self._embedder = embedder
        self._owned: dict[tuple[str, str], str] = {}
        """What keys begin with, by tenant and model."""
        self.epoch = epoch

    def owner_of(self, tenant: str) -> str:
        """Whose answers a tenant's are: its own, or those of its group, `group:NAME`, which no tenant is named."""
        group = self._groups.get(tenant)
        return tenant if group is None else f"{GROUP}{group}"

    def of(self, tenant: str, model: str, question: Question) -> Keys:
        """`model` as `model_of` has it."""
        # JSON tells where it ends, and what follows it is JSON, so nothing else makes the same messages.
        begin = self._owned.get((tenant, model)) or self._begin(tenant, model)
        asked = _mac(self._scope_secret, (begin + question.rest).encode())
        # Of fixed length in front.
        scope = _mac(self._scope_secret, f"{asked}{self._embedder}".encode())
        return Keys(scope, _mac(self._exact_secret, asked.encode() + question.text.encode("utf-8", "surrogatepass")))

    def _begin(self, tenant: str, model: str) -> str:
        group = self._groups.get(tenant)
        owner = ["tenant", tenant] if group is None else ["group", group]
        if len(self._owned) >= MAX_OWNERS:
            self._owned.clear()
        begin = self._owned[tenant, model] = _canonical([FORMAT, self.epoch, owner, model])
        return begin


def derived(secret: bytes, purpose: str) -> bytes:
    """A secret of the cache's own for one purpose, from the server's."""
    return hmac.new(secret, f"forebay cache {purpose}".encode(), hashlib.sha256).digest()


def _mac(secret: bytes, message: bytes) -> str:
    return hmac.digest(secret, message, "sha256")[: KEY_CHARS // 2].hex()


def _parameters(sampling: Sampling, max_tokens: int | None) -> tuple[Any, ...]:
    names, read = _SHAPES[sampling.temperature == 0.0]
    return names, read(sampling), max_tokens


def _plain(text: str) -> str:
    """Unicode's NFC, without spaces at the ends: the same characters for a reader, whichever keyboard wrote them.

    Nothing else: case, spaces inside, punctuation and compatibility characters tell questions apart (`US` and `us`,
    Python's indentation, `x²` and `x2`). The first line of several keeps its indentation, which the others relate to.
    """
    text = normalised("NFC", text).rstrip()
    stripped = text.lstrip()
    if "\n" not in stripped:
        return stripped
    begin = len(text) - len(stripped)
    return text[text.rfind("\n", 0, begin) + 1 :]


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=dict).encode
"""One text for equal values. Not orjson: it writes NaN as null and refuses integers of more than 64 bits."""


@lru_cache(maxsize=256)
def _first_turn(
    add_generation_prompt: bool,
    include_reasoning: bool,
    greedy: bool,
    hashable: tuple[Any, ...],
    max_tokens: int | None,
) -> str:
    """The `rest` of a first message, which only few parameters tell apart from another's: without a bias."""
    names, _ = _SHAPES[greedy]
    at = names.index(_BIAS)
    rest = {
        "route": "chat",
        "earlier": (),
        "last": {"role": "user"},
        "add_generation_prompt": add_generation_prompt,
        "template_kwargs": {},
        "include_reasoning": include_reasoning,
        "sampling": (names, (*hashable[:at], {}, *hashable[at:]), max_tokens),
    }
    return _canonical(rest)


@lru_cache(maxsize=64)
def _model(*parts: str | None) -> str:
    """Of model, revision, adapter, template, family and day."""
    model_id, revision, adapter, template, family, day = parts
    digest = hashlib.sha256((template or "").encode("utf-8", "surrogatepass")).hexdigest()
    return _canonical([model_id, revision, adapter, digest, family, day])
