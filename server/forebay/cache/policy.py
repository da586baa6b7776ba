"""What may be read from the cache and stored in it: the server's, the key's and the request's word, then the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forebay.cache.controls import Controls
from forebay.cache.volatile import depends_on
from forebay.cache_settings import CacheTier
from forebay.types import CachePolicy, Caller, FinishReason, Sampling
from forebay.values import value

TIERS: tuple[CacheTier, ...] = ("off", "exact", "semantic")
"""Each holds the ones before it."""
_RANKS = {tier: rank for rank, tier in enumerate(TIERS)}

MAX_TEXT_CHARS = 2000
"""Embedders read a few hundred tokens; of what is longer, nobody knows whether the rest means the same."""

Reason = Literal[
    "off",
    "asked",
    "chance",
    "choices",
    "logprobs",
    "prompts",
    "tools",
    "media",
    "question",
    "length",
    "time",
    "person",
]
"""Why less than the widest tier. `off`: the server's or the key's policy; `asked`: the request's headers; `chance`: a
temperature above 0 without a seed; `choices`, `logprobs`, `prompts`: more than one answer to one text, or more than its
text; `tools`, `media`; `question`: no user's text at the end; `length`: too long to be compared; `time`, `person`: what
the answer may depend on."""


@value
class Asked:
    """What of a request decides whether its answer may be cached. `text` None: there is nothing to match."""

    text: str | None
    sampling: Sampling
    num_choices: int = 1
    num_prompts: int = 1
    has_tools: bool = False
    has_media: bool = False


@value
class Access:
    """What the request may read and leave behind.

    `max_age_s`: entries that are older are not for it. `only_if_cached`: nothing may be generated for it.
    `reason` says why it is less than the widest tier, for headers and explanations.
    """

    reads: CacheTier
    stores: CacheTier
    max_age_s: float | None = None
    only_if_cached: bool = False
    reason: Reason | None = None

    def allows_age(self, age_ms: int) -> bool:
        return self.max_age_s is None or age_ms <= self.max_age_s * 1000

    @property
    def searches(self) -> bool:
        """Whether it has to do with the semantic tier."""
        return "semantic" in (self.reads, self.stores)

    @property
    def can_join(self) -> bool:
        """Whether it may share a generation with others that ask the same at the same time."""
        return self.reads != "off" and self.stores != "off"


@dataclass(frozen=True, slots=True)
class CacheRules:
    """`most`: what the server offers at all. `default`: what keys get that say nothing, None for as much."""

    most: CacheTier = "off"
    default: CacheTier | None = None

    def access(self, caller: Caller, controls: Controls, asked: Asked) -> Access:
        """Nothing that is narrower is widened by what comes later."""
        policy = self._of_key(caller.cache_policy)
        if policy == "off":
            return _nothing(controls, "off")
        if (reason := _refusal(asked, any_temperature=caller.cache_any_temperature)) is not None:
            return _nothing(controls, reason)
        widest: CacheTier = _narrower(policy, controls.tier)
        why: Reason | None = None if widest == "semantic" else "asked" if widest != policy else "off"
        if widest == "semantic" and (why := _narrowing(asked.text or "")) is not None:
            widest = "exact"
        return Access(
            reads="off" if controls.no_cache else widest,
            stores="off" if controls.no_store else widest,
            max_age_s=controls.max_age_s,
            only_if_cached=controls.only_if_cached,
            reason="asked" if controls.no_cache or controls.no_store else why,
        )

    def _of_key(self, policy: CachePolicy) -> CacheTier:
        if policy == "default":
            return self.most if self.default is None else _narrower(self.most, self.default)
        return _narrower(self.most, policy)


def may_be_stored(finish_reason: FinishReason | None, *, num_tokens: int) -> bool:
    """Whole answers only: what ended at a limit, broke off or holds nothing is asked for again."""
    return finish_reason == "stop" and num_tokens > 0


def _narrowing(text: str) -> Reason | None:
    """Why a text is left to the exact tier."""
    if len(text) > MAX_TEXT_CHARS:
        return "length"
    found = depends_on(text)
    return None if found is None else found.kind


def _nothing(controls: Controls, reason: Reason) -> Access:
    """A request that wants a stored answer or none gets none also where nothing may be stored."""
    return Access("off", "off", only_if_cached=controls.only_if_cached, reason=reason)


def _narrower(one: CacheTier, other: CacheTier) -> CacheTier:
    return one if _RANKS[one] <= _RANKS[other] else other


def _refusal(asked: Asked, *, any_temperature: bool) -> Reason | None:
    sampling = asked.sampling
    if asked.has_tools:
        return "tools"
    if asked.has_media:
        return "media"
    if asked.num_choices != 1:
        return "choices"
    if asked.num_prompts != 1:
        return "prompts"
    if sampling.num_logprobs is not None:
        return "logprobs"
    if not asked.text:
        return "question"
    is_repeatable = sampling.temperature == 0.0 or sampling.seed is not None
    return None if is_repeatable or any_temperature else "chance"
