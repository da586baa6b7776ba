"""Look-ups that do not pay are left out, and tried again from time to time."""

from __future__ import annotations

import random

import pytest

from forebay.cache.costs import CostRule, Costs

LOOKUP_S = 0.010
RULE = CostRule(span=100, pause=200, longest_pause=1600)


def ask(costs: Costs, number: int, hit_rate: float, engine_s: float) -> int:
    """So many requests; how many of them were looked up."""
    rng, num_lookups = random.Random(3), 0
    for _ in range(number):
        hit = rng.random() < hit_rate
        if costs.wants_lookup():
            num_lookups += 1
            costs.looked_up(LOOKUP_S, hit=hit)
            if hit:
                continue
        costs.generated(engine_s)
    return num_lookups


def test_break_even_is_the_look_ups_time_over_what_a_hit_saves() -> None:
    """10 ms against 1 s: one hit in a hundred."""
    costs = Costs(RULE)
    ask(costs, 90, 0.0, engine_s=1.0)
    assert costs.break_even == pytest.approx(0.01)
    assert costs.hit_rate == 0.0


def test_what_pays_stays_on() -> None:
    """A third of hits, with 10 ms against 1 s."""
    costs = Costs(RULE)
    assert ask(costs, 5000, 0.3, engine_s=1.0) == 5000
    assert not costs.off
    assert costs.hit_rate == pytest.approx(0.3, abs=0.15)


def test_what_does_not_pay_is_left_out_and_tried_with_ever_longer_pauses() -> None:
    """10 ms spent to save 12 ms once in twenty requests: one look-up in many is made, to see."""
    costs = Costs(RULE)
    num_lookups = ask(costs, 20_000, 0.05, engine_s=0.012)
    assert costs.num_skipped == 20_000 - num_lookups
    # Pauses of 200, 400, 800 and then 1600 requests, trials of 100.
    assert num_lookups == 1400


def test_by_setting_all_are_made() -> None:
    """And what they cost is told all the same."""
    costs = Costs(RULE, strict=False)
    assert ask(costs, 5000, 0.05, engine_s=0.012) == 5000
    assert not costs.off
    assert costs.hit_rate < costs.break_even == pytest.approx(LOOKUP_S / 0.012)


def test_nothing_is_decided_on_few_look_ups() -> None:
    """A hundred are made first, whatever they bring."""
    costs = Costs(RULE)
    assert ask(costs, 99, 0.0, engine_s=0.001) == 99
    assert not costs.off
    ask(costs, 1, 0.0, engine_s=0.001)
    assert costs.off


def test_it_comes_back_when_hits_do() -> None:
    """After the pause a trial shows that it pays, and the next pause is a short one again."""
    costs = Costs(RULE)
    ask(costs, 3000, 0.0, engine_s=0.1)
    assert costs.num_skipped > RULE.pause
    ask(costs, 1700, 0.5, engine_s=0.1)
    assert not costs.off
    assert ask(costs, 1000, 0.5, engine_s=0.1) == 1000
    while not costs.off:
        ask(costs, 1, 0.0, engine_s=0.1)
    skipped = costs.num_skipped
    while costs.off:
        costs.wants_lookup()
    assert costs.num_skipped - skipped == RULE.pause


def test_where_one_hit_in_many_pays_it_takes_longer_to_tell() -> None:
    """At a break-even of 0.5% a hundred look-ups without a hit say nothing; eight hundred do."""
    costs = Costs(RULE)
    assert ask(costs, 700, 0.0, engine_s=2.0) == 700
    ask(costs, 150, 0.0, engine_s=2.0)
    assert costs.off


def test_look_ups_that_were_under_way_lengthen_no_pause() -> None:
    """Sixteen come back after look-ups were turned off: the first pause is as long as ever."""
    costs = Costs(RULE)
    ask(costs, 100, 0.0, engine_s=0.001)
    assert costs.off
    for _ in range(16):
        costs.looked_up(LOOKUP_S, hit=False)
    assert ask(costs, RULE.pause, 0.0, engine_s=0.001) == 0
    assert costs.wants_lookup()


def test_little_below_break_even_it_stays_on() -> None:
    """A trial of a hundred cannot tell 45% from 50%; it would flap."""
    costs = Costs(RULE)
    hits = [at % 20 < 9 for at in range(2000)]
    for hit in hits:
        assert costs.wants_lookup()
        costs.looked_up(LOOKUP_S, hit=hit)
        costs.generated(0.02)


def test_a_cache_that_only_hits_is_left_on() -> None:
    """No miss has told what generating takes; nothing says that looking up does not pay."""
    costs = Costs(RULE)
    for _ in range(500):
        assert costs.wants_lookup()
        costs.looked_up(LOOKUP_S, hit=True)


@pytest.mark.parametrize("wrong", [{"span": 1}, {"pause": 0}, {"pause": 100_000}, {"sureness": -1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    """When the rule is made."""
    with pytest.raises(ValueError, match="out of range"):
        CostRule(**wrong)
