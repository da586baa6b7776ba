"""Cuts: where they are set, and how the error level is shared among them."""

from __future__ import annotations

import random

import pytest

from forebay.cache.cuts import KEPT, Cuts

ALPHA, ALLOWED = 0.05, 0.05


def learnt(cuts: Cuts, score: float, number: int, *, wrong: int = 0) -> None:
    for at in range(number):
        cuts.learn(score, 1.0, ALLOWED, wrong=at < wrong)


def test_cuts_keep_set_shares_of_the_scores() -> None:
    """Whatever the scale of the scores."""
    for scale in (1.0, 1e-6):
        cuts = Cuts([scale * at for at in range(1, 201)])
        kept = [sum(scale * at >= cut.score for at in range(1, 201)) / 200 for cut in cuts]
        assert kept == pytest.approx(KEPT)


def test_scores_that_coincide_make_fewer_cuts() -> None:
    """One value, one cut."""
    assert len(Cuts([0.9] * 200)) == 1


def test_a_level_is_passed_on_from_cut_to_cut_that_is_proven() -> None:
    """Each has its share; the one after a proven one has that one's too."""
    cuts = Cuts([at / 200 for at in range(1, 201)])
    share = 0.75 * ALPHA / len(cuts)
    assert [level for level, _ in cuts.levels(ALLOWED, ALPHA)] == pytest.approx([share] * len(cuts))
    learnt(cuts, 1.0, 200)
    assert [level for level, _ in cuts.levels(ALLOWED, ALPHA)] == pytest.approx(
        [share * (at + 1) for at in range(len(cuts))]
    )
    learnt(cuts, cuts[1].score, 40, wrong=40)
    levels = cuts.levels(ALLOWED, ALPHA)
    assert [good for _, good in levels] == [True] + [False] * (len(cuts) - 1)
    assert [level for level, _ in levels] == pytest.approx([share, 2 * share] + [share] * (len(cuts) - 2))


def test_the_loosest_proven_cut_is_taken() -> None:
    """Errors far below it do not matter."""
    cuts = Cuts([at / 200 for at in range(1, 201)])
    learnt(cuts, cuts[2].score, 400)
    learnt(cuts, cuts[3].score, 100, wrong=60)
    assert cuts.loosest_good(ALLOWED, ALPHA) == 2
    assert cuts.loosest_plausible(ALLOWED) == 2


def test_cuts_of_too_many_errors_begin_anew_at_a_lower_level() -> None:
    """Not before so many labels that it is no accident; levels of all eras together stay within alpha."""
    cuts = Cuts([0.9])
    levels = []
    for _ in range(30):
        levels.append(cuts.levels(ALLOWED, ALPHA)[0][0])
        learnt(cuts, 1.0, 159, wrong=20)
        cuts.renew(ALLOWED)
        assert cuts[0].evidence.mass == 159
        learnt(cuts, 1.0, 1)
        cuts.renew(ALLOWED)
        assert cuts[0].evidence.mass == 0
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > ALPHA / 2
    assert ALPHA * 0.95 < sum(levels) < ALPHA


def test_a_level_is_not_passed_on_to_a_cut_of_another_era() -> None:
    """Or an old proof would be spent again in each era."""
    cuts = Cuts([at / 200 for at in range(1, 201)])
    learnt(cuts, 1.0, 300)
    cuts.forget(2)
    learnt(cuts, 1.0, 300)
    levels = [level for level, _ in cuts.levels(ALLOWED, ALPHA)]
    assert levels[2] < levels[0] < levels[1]
    assert levels[2] < levels[3] < levels[4]


def test_bad_cuts_are_seldom_taken_for_good_though_all_are_tried_at_every_label() -> None:
    """Every cut is just not good enough: in at most 5% of streams is one ever taken, for all looks and cuts."""

    def taken(seed: int) -> bool:
        rng = random.Random(seed)
        cuts = Cuts([at / 200 for at in range(1, 201)])
        for _ in range(500):
            cuts.learn(rng.random(), 1.0, ALLOWED, wrong=rng.random() < ALLOWED)
            if any(good for _, good in cuts.levels(ALLOWED, ALPHA)):
                return True
        return False

    # Of 100 streams at most 11 where 5% are: more with a chance of 1%.
    assert sum(taken(seed) for seed in range(100)) <= 11
