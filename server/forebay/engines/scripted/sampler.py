"""Draws tokens as a `Sampling` asks, in the order in which vLLM applies its parts, over plain lists."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate, count
from struct import unpack

from forebay.engines.scripted.model import weights
from forebay.engines.scripted.tokenizer import token_text
from forebay.engines.scripted.vocabulary import TOKEN_BYTES
from forebay.types import Alternative, GenerationRequest, Sampling, TokenLogprob

FORBIDDEN = -1e9


def uniform_numbers(sampling: Sampling, context: int, index: int) -> Callable[[], float] | None:
    """Draws the numbers from [0, 1) by which choice `index` samples; None where it always takes the most likely token.

    Without a seed they follow from the prompt, of which `context` is the model's, so that a run can be repeated.
    """
    if sampling.temperature == 0.0:
        return None
    return _uniform(f"{context if sampling.seed is None else sampling.seed}/{index}").__next__


def _uniform(seed: str) -> Iterator[float]:
    """Eight numbers a digest: `random.Random` has 2.5 KB of state, which take longer to fill than sixteen tokens."""
    for block in count():
        for word in unpack("<8Q", blake2b(f"{seed}/{block}".encode()).digest()):
            yield (word >> 11) * 2**-53


def num_careful_draws(sampling: Sampling, ends: frozenset[int]) -> float:
    """How many draws must see the logits, one by one; those after them need only a look into the model's tables."""
    filters = sampling.top_k is not None or sampling.top_p < 1.0 or sampling.min_p > 0.0
    penalises = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
    if sampling.num_logprobs is not None or sampling.logit_bias or penalises or (filters and not sampling.greedy):
        return math.inf
    return sampling.min_tokens if ends else 0


class Sampler:
    """The draws of one choice that must see the logits."""

    __slots__ = ("_counts", "_ends", "_prompt", "_sampling", "_uniform")

    def __init__(self, request: GenerationRequest, ends: frozenset[int], uniform: Callable[[], float] | None) -> None:
        """`ends`: the tokens that end the choice; `uniform`: what `uniform_numbers` gives."""
        self._sampling = request.sampling
        self._ends = ends
        self._uniform = uniform
        self._prompt = frozenset(request.prompt.token_ids if request.sampling.repetition_penalty != 1.0 else ())
        self._counts: Counter[int] = Counter()

    def draw(self, logits: list[float], num_tokens: int) -> int:
        """A token from `logits`, which stay as they are, after `num_tokens` tokens of this choice."""
        adjusted = self._adjust(logits, num_tokens)
        if self._uniform is None:
            token = max(range(len(adjusted)), key=adjusted.__getitem__)
        else:
            running_sum = list(accumulate(self._filter(weights(adjusted, self._sampling.temperature))))
            token = bisect_right(running_sum, self._uniform() * running_sum[-1])
        self._counts[token] += 1
        return token

    def logprob(self, logits: list[float], token: int, forced: float | None) -> TokenLogprob:
        """Of the raw distribution. `forced` replaces the chosen token's own."""
        peak = max(logits)
        norm = peak + math.log(math.fsum([math.exp(logit - peak) for logit in logits]))
        top = heapq.nlargest(self._sampling.num_logprobs or 0, range(len(logits)), key=logits.__getitem__)
        chosen = logits[token] - norm if forced is None else forced
        return TokenLogprob(
            _alternative(token, chosen), tuple(_alternative(other, logits[other] - norm) for other in top)
        )

    def _adjust(self, logits: list[float], num_tokens: int) -> list[float]:
        """`min_tokens`, bias, then penalties."""
        wanted = self._sampling
        adjusted = logits.copy()
        for token, bias in wanted.logit_bias.items():
            adjusted[token] += bias
        if num_tokens < wanted.min_tokens:
            for token in self._ends:
                adjusted[token] = FORBIDDEN
        if wanted.repetition_penalty != 1.0:
            for token in self._prompt | self._counts.keys():
                factor = wanted.repetition_penalty
                adjusted[token] = adjusted[token] / factor if adjusted[token] > 0 else adjusted[token] * factor
        if wanted.frequency_penalty or wanted.presence_penalty:
            for token, count in self._counts.items():
                adjusted[token] -= wanted.frequency_penalty * count + wanted.presence_penalty
        return adjusted

    def _filter(self, mass: list[float]) -> list[float]:
        """Zeroes what min_p, then top_k, then top_p leave out; the most likely token always stays."""
        wanted = self._sampling
        if wanted.min_p > 0.0:
            floor = wanted.min_p * max(mass)
            mass = [value if value >= floor else 0.0 for value in mass]
        if wanted.top_k is None and wanted.top_p >= 1.0:
            return mass
        best = heapq.nlargest(wanted.top_k or len(mass), range(len(mass)), key=mass.__getitem__)
        budget = wanted.top_p * math.fsum([mass[token] for token in best])
        kept = [0.0] * len(mass)
        for token in best:
            kept[token] = mass[token]
            budget -= mass[token]
            if budget <= 0.0:
                break
        return kept


def _alternative(token: int, logprob: float) -> Alternative:
    return Alternative(token, token_text(token), TOKEN_BYTES[token], logprob)
