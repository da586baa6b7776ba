"""A pseudo-model: next-token logits that depend on the seed and on everything before, and cost next to nothing."""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from itertools import accumulate

from forebay.engines.scripted.vocabulary import EOS, FIRST_PIECE, SPECIALS, VOCAB_SIZE

NUM_STATES = 256
NUM_EOS_STATES = 2
"""States in which the model wants to end: a greedy answer has 128 tokens in the mean."""
MAX_TEMPERATURES = 8
PARTS = 64

Distribution = tuple["array[float]", float, "array[int]"]
"""The running sum of the unnormalised probabilities in order of token ids, its last value, and for a number from each
of `PARTS` parts of [0, 1) where in it to begin to look: the sums of all states are more than a core's cache holds."""

_MASK = (1 << 60) - 1
_FACTOR = 0x5851F42D4C957F2D & _MASK
_SHIFT = 44
_COMMON = {ord(","): 1.0, ord("."): 1.5, ord("\n"): -1.0}
_RARE_ASCII, _RARE_BYTE, _SPECIAL = -9.0, -40.0, -14.0
_SPREAD = 2.0


class PseudoModel:
    """A context is a hash of the prompt and of all tokens after it; its top bits name one of `NUM_STATES` states."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(f"forebay scripted {seed}")
        self._seed = draw.getrandbits(60)
        self.logits: list[list[float]] = [_logits(draw, state) for state in range(NUM_STATES)]
        """By state, then by token id."""
        self.greedy: list[int] = [_argmax(logits) for logits in self.logits]
        """The most likely token by state."""
        self.distributions = lru_cache(MAX_TEMPERATURES)(self._distributions)

    def start(self, token_ids: Iterable[int]) -> int:
        """The context after a prompt; one that does not end the answer before it began."""
        context = self._seed
        for token in token_ids:
            context = ((context ^ token) * _FACTOR + 1) & _MASK
        while state_of(context) < NUM_EOS_STATES:
            context = advance(context, EOS)
        return context

    def write(
        self,
        context: int,
        num_tokens: int,
        ends: Collection[int],
        temperature: float,
        uniform: Callable[[], float] | None,
    ) -> tuple[list[int], int]:
        """(token ids, the context after them): what the model says by itself, up to a token of `ends` at most.

        `uniform` draws a number from [0, 1) for each token; without it each is the most likely one.
        """
        greedy, distributions = self.greedy, [] if uniform is None else self.distributions(temperature)
        token_ids: list[int] = []
        for _ in range(num_tokens):
            state = (context >> _SHIFT) % NUM_STATES
            if uniform is None:
                token = greedy[state]
            else:
                running_sum, total, guide = distributions[state]
                number = uniform()
                part = int(number * PARTS)
                # `bisect_right` steps over tokens without mass.
                token = bisect_right(running_sum, number * total, guide[part], guide[part + 1])
            context = ((context ^ token) * _FACTOR + 1) & _MASK
            token_ids.append(token)
            if token in ends:
                break
        return token_ids, context

    def _distributions(self, temperature: float) -> list[Distribution]:
        """By state."""
        return [_distribution(weights(logits, temperature)) for logits in self.logits]


def advance(context: int, token: int) -> int:
    return ((context ^ token) * _FACTOR + 1) & _MASK


def state_of(context: int) -> int:
    return (context >> _SHIFT) % NUM_STATES


def weights(logits: list[float], temperature: float) -> list[float]:
    """Probabilities up to a factor."""
    peak = max(logits)
    return [math.exp((logit - peak) / temperature) for logit in logits]


def _distribution(mass: list[float]) -> Distribution:
    running_sum = array("d", accumulate(mass))
    total = running_sum[-1]
    places = [bisect_right(running_sum, part / PARTS * total) for part in range(PARTS)]
    return running_sum, total, array("H", [*places, len(mass)])


def _logits(draw: random.Random, state: int) -> list[float]:
    logits = [_prior(token) + draw.gauss(0.0, _SPREAD) for token in range(VOCAB_SIZE)]
    if state < NUM_EOS_STATES:
        logits[EOS] = max(logits) + 3.0
    return logits


def _prior(token: int) -> float:
    if token >= FIRST_PIECE:
        return -0.4 * math.log(token - FIRST_PIECE + 10)
    if token in SPECIALS:
        return _SPECIAL
    return _COMMON.get(token, _RARE_ASCII) if token < 128 else _RARE_BYTE


def _argmax(logits: list[float]) -> int:
    return max(range(len(logits)), key=logits.__getitem__)
