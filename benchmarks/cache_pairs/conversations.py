"""Conversations whose last messages are alike and whose earlier turns are not: what the scope key is for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cache_pairs.fitting import measured, served
from forebay.cache.calibration import Calibration
from forebay.cache.scope import Keys, ScopeKeys, chat_question
from forebay.embedding.base import Embedder
from forebay.types import Chat, Sampling

NUM_TRAPS, NUM_REPEATS = 300, 100
MAX_ERROR_RATE = 0.01
GREEDY = Sampling(256, temperature=0.0)
KEYS = ScopeKeys(b"s" * 32)

ABOUT = (
    (
        ("Do you sell {}?", "Yes, {} is in our catalogue."),
        "the Lumo desk lamp|a walnut bookshelf|the Arco kettle|a folding bicycle|the Nord tent|an espresso machine"
        "|the Halo headset|a cast iron pan|the Vento fan|a standing desk|the Pico projector|a down jacket",
        (
            ("And how much is it?", "and how much is it please?"),
            ("Which colours does it come in?", "which colors does it come in, thanks"),
            ("How heavy is it?", "hi, how heavy is it"),
            ("Does it come with a warranty?", "Does it come with a guarantee?"),
            ("How do I clean it?", "how can I clean it please"),
        ),
    ),
    (
        ("Tell me about {}.", "{} is worth a journey."),
        "Lisbon|Tartu|Oaxaca|Hobart|Bergen|Kyoto|Marrakesh|Ljubljana|Valparaiso|Galway|Tbilisi|Cork",
        (
            ("How many people live there?", "how many people live there, please"),
            ("What is the best month to visit?", "What's the best month to visit?"),
            ("What should I eat there?", "hello, what should I eat there?"),
            ("Which river runs through it?", "which river flows through it?"),
            ("How do I get there by train?", "how can I get there by train please"),
        ),
    ),
)
"""How a conversation begins, on what, and how its user goes on, each in two wordings."""


class Conversation(NamedTuple):
    earlier: tuple[dict[str, str], ...]
    last: str


Pair = tuple[Conversation, Conversation]


def conversations(rng: random.Random, num: int, *, same_topic: bool) -> list[Pair]:
    """Pairs on two topics or on one, with the same last message or another wording of it, half of them each."""
    pairs = []
    for number in range(num):
        (question, answer), listed, endings = ABOUT[number // 2 % len(ABOUT)]
        topics = rng.sample(listed.split("|"), 2)
        wordings = rng.choice(endings)
        said = ((topics[0], wordings[0]), (topics[0 if same_topic else 1], wordings[number % 2]))
        one, other = (
            Conversation((_turn("user", question.format(topic)), _turn("assistant", answer.format(topic))), last)
            for topic, last in said
        )
        pairs.append((one, other))
    return pairs


def conversation_figures(embedder: Embedder, calibration: Calibration) -> dict[str, Any]:
    """How many pairs would be answered from each other: on the last message alone, and with the scope key in front."""
    rng = random.Random(7)
    traps = conversations(rng, NUM_TRAPS, same_topic=False)
    repeats = conversations(rng, NUM_REPEATS, same_topic=True)
    found: dict[str, Any] = {"max_error_rate": MAX_ERROR_RATE}
    for name, pairs in (("traps", traps), ("repeats", repeats)):
        agrees = _decided(pairs, embedder, calibration)
        alone = [(one._replace(earlier=()), other._replace(earlier=())) for one, other in pairs]
        found[name] = len(pairs)
        found[f"{name}_answered_on_the_last_message_alone"] = _num_answered(alone, agrees)
        found[f"{name}_answered_inside_their_scope"] = _num_answered(pairs, agrees)
    return found


def _decided(pairs: Sequence[Pair], embedder: Embedder, calibration: Calibration) -> np.ndarray:
    """Of the last messages. What is measured needs a label, which is not looked at."""
    rows = [{"group": one.last, "a": one.last, "b": other.last, "same_answer": True} for one, other in pairs]
    return np.asarray(served(calibration, measured(rows, embedder)) >= 1 - MAX_ERROR_RATE)


def _num_answered(pairs: Sequence[Pair], agrees: np.ndarray) -> int:
    """By the same words, or by the decision inside one scope, as the two tiers do."""
    keys = [(_keys(one), _keys(other)) for one, other in pairs]
    return sum(
        one.exact == other.exact or (one.scope == other.scope and bool(decided))
        for (one, other), decided in zip(keys, agrees, strict=True)
    )


def _keys(conversation: Conversation) -> Keys:
    chat = Chat((*conversation.earlier, _turn("user", conversation.last)))
    question = chat_question(chat, GREEDY, max_tokens=None)
    assert question is not None
    return KEYS.of("acme", "a model", question)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
