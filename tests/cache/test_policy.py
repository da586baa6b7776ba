"""What may be read and stored: the server, the key, the request, and the rules."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

import pytest

from forebay.cache.controls import Controls, read_controls
from forebay.cache.policy import TIERS, Access, Asked, CacheRules, may_be_stored
from forebay.cache.volatile import depends_on
from forebay.cache_settings import CacheTier
from forebay.errors import InvalidRequest
from forebay.tenants.keys import KeyFields
from forebay.types import CachePolicy, Caller, Sampling

GREEDY = Sampling(16, temperature=0.0)
ASKED = Asked("How do I bake bread?", GREEDY)
ALL = CacheRules("semantic")


def caller(policy: CachePolicy = "default", *, any_temperature: bool = False) -> Caller:
    return Caller("acme", "k", cache_policy=policy, cache_any_temperature=any_temperature)


def access(rules: CacheRules = ALL, who: Caller | None = None, asked: Asked = ASKED, **controls: Any) -> Access:
    return rules.access(who or caller(), Controls(**controls), asked)


def test_nothing_is_cached_unless_it_is_switched_on() -> None:
    """The settings' defaults."""
    assert access(CacheRules()) == Access("off", "off", reason="off")
    assert access(CacheRules(), caller("semantic")).reads == "off"


@pytest.mark.parametrize(("most", "policy", "tier"), [*itertools.product(TIERS, get_args(CachePolicy), TIERS)])
def test_the_narrowest_of_server_key_and_request_counts(most: CacheTier, policy: CachePolicy, tier: CacheTier) -> None:
    """Nobody widens what another has narrowed."""
    found = access(CacheRules(most), caller(policy), tier=tier)
    narrowest = min(TIERS.index(most), TIERS.index(tier), 2 if policy == "default" else TIERS.index(policy))
    assert (found.reads, found.stores) == (TIERS[narrowest],) * 2
    assert (found.reason is None) == (found.reads == "semantic")


def test_keys_may_be_let_in_one_by_one() -> None:
    """The server offers it, keys that say nothing do not get it."""
    rules = CacheRules("semantic", default="off")
    assert access(rules).reads == "off"
    assert access(rules, caller("semantic")).reads == "semantic"
    assert access(CacheRules("exact", default="semantic")).reads == "exact"


@pytest.mark.parametrize(
    ("sampling", "any_temperature", "cached"),
    [
        (GREEDY, False, True),
        (replace(GREEDY, temperature=1.0), False, False),
        (replace(GREEDY, temperature=1.0, seed=0), False, True),
        (replace(GREEDY, temperature=1.0), True, True),
    ],
)
def test_answers_that_are_drawn_by_chance(sampling: Sampling, any_temperature: bool, cached: bool) -> None:
    """Only with a seed, or for keys that accept any temperature."""
    found = access(who=caller(any_temperature=any_temperature), asked=Asked("Why?", sampling))
    assert found.reads == found.stores == ("semantic" if cached else "off")
    assert found.reason == (None if cached else "chance")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (replace(ASKED, num_choices=2), "choices"),
        (replace(ASKED, num_prompts=2), "prompts"),
        (replace(ASKED, has_tools=True), "tools"),
        (replace(ASKED, has_media=True), "media"),
        (replace(ASKED, text=None), "question"),
        (replace(ASKED, text=""), "question"),
        (replace(ASKED, sampling=replace(GREEDY, num_logprobs=0)), "logprobs"),
    ],
)
def test_what_is_never_cached(asked: Asked, reason: str) -> None:
    """Neither read nor stored, also for a key that accepts everything."""
    assert access(who=caller("semantic", any_temperature=True), asked=asked) == Access("off", "off", reason=reason)


@pytest.mark.parametrize(
    ("finish", "num_tokens", "stored"), [("stop", 3, True), ("length", 3, False), (None, 3, False), ("stop", 0, False)]
)
def test_only_whole_answers_are_stored(finish: Any, num_tokens: int, stored: bool) -> None:
    """An answer that was cut off is no answer to the next one."""
    assert may_be_stored(finish, num_tokens=num_tokens) is stored


@pytest.mark.parametrize(
    ("own", "standard", "expected"),
    [
        (None, None, Controls()),
        ("exact", None, Controls(tier="exact")),
        ("OFF", None, Controls(tier="off")),
        ("semantic, exact", None, Controls(tier="exact")),
        (None, "no-cache", Controls(no_cache=True)),
        ("no-cache", "no-store", Controls(no_cache=True, no_store=True)),
        (None, "max-age=60", Controls(max_age_s=60)),
        (None, 'Max-Age="60" , max-age=30', Controls(max_age_s=30)),
        ("max-age=9", "max-age=5", Controls(max_age_s=5)),
        (None, "max-age=0", Controls(max_age_s=0, no_cache=True)),
        (None, "max-age=99999999999999999999", Controls(max_age_s=2**31)),
        ("only-if-cached", None, Controls(only_if_cached=True)),
        (None, "max-stale=5, no-transform, x=y, ,", Controls()),
    ],
)
def test_what_headers_ask_for(own: str | None, standard: str | None, expected: Controls) -> None:
    """Both may be sent; of `Cache-Control`, what is for others is passed over."""
    assert read_controls(own, standard) == expected


@pytest.mark.parametrize(
    ("own", "standard", "header"),
    [
        ("on", None, "x-cache-control"),
        ("max-age", None, "x-cache-control"),
        ("max-age=-1", None, "x-cache-control"),
        ("exact=1", None, "x-cache-control"),
        (None, "max-age=soon", "cache-control"),
        (None, "max-age=٣", "cache-control"),
        (None, "no-store=1", "cache-control"),
        (None, "only-if-cached, no-cache", "cache-control"),
        ("off, only-if-cached", None, "x-cache-control"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(own: str | None, standard: str | None, header: str) -> None:
    """400, and its name."""
    with pytest.raises(InvalidRequest) as caught:
        read_controls(own, standard)
    assert caught.value.param == header
    assert f"`{header}`" in caught.value.message


def test_what_controls_do() -> None:
    """A new answer is stored for others; one that must not be stored may come from the store, and shares no work."""
    assert access(no_cache=True) == Access("off", "semantic", reason="asked")
    assert access(no_store=True) == Access("semantic", "off", reason="asked")
    assert access(max_age_s=5.0).max_age_s == 5.0
    assert access(CacheRules(), only_if_cached=True) == Access("off", "off", only_if_cached=True, reason="off")
    assert [access(**asked).can_join for asked in ({}, {"no_cache": True}, {"no_store": True})] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's the weather in Paris tomorrow?", "time"),
        ("What time is it?", "time"),
        ("Who won the final last year?", "time"),
        ("Is the shop open now?", "time"),
        ("What happened two weeks ago?", "time"),
        ("Wie wird das Wetter heute?", "time"),
        ("今天星期几？", "time"),
        ("Where is my order?", "person"),
        ("What was my last invoice?", "person"),
        ("Who am I?", "person"),
        ("Have I paid?", "person"),
        ("Restaurants near me", "person"),
        ("How do I reset my password?", None),
        ("Can I change my appointment online?", None),
        ("What documents do I need to open a current account?", None),
        ("Explain nowhere differentiable functions", None),
        ("What is the capital of France?", None),
    ],
)
def test_what_depends_on_time_or_person(text: str, expected: str | None) -> None:
    """The semantic tier leaves it to the exact one; everybody's questions stay."""
    depends = depends_on(text)
    assert (depends and depends.kind) == expected
    found = access(asked=Asked(text, GREEDY))
    assert (found.reads, found.reason) == (("semantic", None) if expected is None else ("exact", expected))


def test_a_text_that_no_embedder_reads_to_its_end() -> None:
    """Is compared with the very same one only."""
    found = access(asked=Asked("x" * 2001, GREEDY))
    assert (found.reads, found.stores, found.reason) == ("exact", "exact", "length")


def test_keys_that_were_written_before_are_read() -> None:
    """A key of an older server accepts no answers drawn by chance, and its policies mean what they meant."""
    for policy in ("default", "exact", "off"):
        old = KeyFields(cache_policy=policy).to_json().replace('"cache_any_temperature":false,', "")
        assert "any_temperature" not in old
        assert KeyFields.from_json(old) == KeyFields(cache_policy=policy)
    assert KeyFields.from_json(KeyFields(cache_policy="semantic", cache_any_temperature=True).to_json()) == KeyFields(
        cache_policy="semantic", cache_any_temperature=True
    )
