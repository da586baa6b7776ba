"""When hits are served and when not: labels decide, an operator's rate bounds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.labels import Ruling

WRONG_BELOW = 0.7


def is_right(score: float) -> bool:
    """Candidates of these tests: right from a score on."""
    return score >= WRONG_BELOW


def feed(
    assurance: Assurance, number: int, right: Callable[[float], bool] = is_right, seed: int = 0
) -> list[tuple[Ruling, bool]]:
    """So many candidates; labels come at once. Rulings, and whether each candidate was right."""
    rng = random.Random(seed)
    ruled = []
    for _ in range(number):
        score = rng.uniform(0.5, 1.0)
        ruling, same = assurance.decide(score), right(score)
        ruled.append((ruling, same))
        if ruling.labelled:
            assurance.learn(ruling, same=same)
    return ruled


def served(ruled: list[tuple[Ruling, bool]]) -> list[bool]:
    """Of the hits, which were right."""
    return [same for ruling, same in ruled if ruling.action == "serve"]


def an_assurance(rate: float = 0.05, **aims: float) -> Assurance:
    return Assurance(Aims(rate, **aims), "test", random.Random(1))


@pytest.mark.parametrize(("rate", "least"), [(0.05, 59), (0.01, 299), (0.005, 598)])
def test_nothing_is_served_before_labels_allow_it(rate: float, least: int) -> None:
    """Even without any error, and whatever scores say: not before so many labels at or above the threshold."""
    assurance, num_labels = an_assurance(rate), 0
    while True:
        ruling = assurance.decide(1.0)
        if ruling.action == "serve":
            break
        assert ruling.action == "observe"
        assert ruling.labelled
        num_labels += len(assurance.standing().cuts) > 0
        assurance.learn(ruling, same=True)
    assert num_labels >= least
    standing = assurance.standing()
    assert standing.labels_in_force <= 1.4 * least
    assert standing.error_upper95 <= rate


def test_the_labels_that_are_needed_are_known_while_scores_are_gathered() -> None:
    """The number that an operator reads before there are thresholds is that of the strictest one."""
    assurance, told = an_assurance(), []
    for score in range(1000):
        told.append(assurance.standing().clean_labels_needed)
        if assurance.standing().why == "gathering labels":
            break
        assurance.learn(assurance.decide(0.9 + score / 1e5), same=True)
    assert assurance.standing().why == "gathering labels"
    assert len(told) > 1
    assert len(set(told)) == 1


def test_it_comes_to_serve_what_is_right_and_no_more() -> None:
    """The threshold settles above the scores of wrong candidates; hits stay within the rate."""
    assurance = an_assurance()
    feed(assurance, 4000)
    assert assurance.threshold is not None
    assert assurance.threshold >= WRONG_BELOW - 0.02
    hits = served(feed(assurance, 2000, seed=1))
    assert len(hits) > 800
    assert hits.count(False) <= 0.05 * len(hits)


def test_it_never_serves_where_too_much_is_wrong() -> None:
    """One in ten wrong at any score, one in twenty allowed: it observes for good and says why."""
    assurance, rng = an_assurance(), random.Random(5)
    assert served(feed(assurance, 5000, lambda _: rng.random() > 0.1)) == []
    standing = assurance.standing()
    assert standing.why == "errors too many"
    assert not standing.serving
    assert standing.error_rate > 0.05


def test_hits_are_regenerated_at_the_set_rate_and_misses_are_all_labelled() -> None:
    """2% of hits; all near misses; nothing below the floor."""
    assurance = an_assurance()
    feed(assurance, 4000)
    ruled = [ruling for ruling, _ in feed(assurance, 6000, seed=2)]
    hits = [ruling for ruling in ruled if ruling.action == "serve"]
    assert sum(hit.labelled for hit in hits) / len(hits) == pytest.approx(0.02, abs=0.01)
    assert all(ruling.labelled for ruling in ruled if ruling.action == "miss")
    assert not assurance.decide(0.49).labelled


def test_a_rise_of_errors_is_met_and_outlived() -> None:
    """Everything turns wrong: within some hundreds of hits none is served; good again, it serves again by itself."""
    assurance = an_assurance()
    feed(assurance, 4000)
    wrong_hits = served(feed(assurance, 3000, lambda _: False, seed=3))
    assert len(wrong_hits) < 300
    assert assurance.threshold is None
    feed(assurance, 3000, seed=4)
    hits = served(feed(assurance, 2000, seed=5))
    assert len(hits) > 500
    assert all(hits)


def test_errors_low_down_tighten_the_threshold_only() -> None:
    """Candidates up to 0.85 turn wrong: stricter cuts go on serving, or serve again soon, and the wrong ones do not."""
    assurance = an_assurance()
    feed(assurance, 4000)
    before = assurance.threshold
    feed(assurance, 4000, lambda score: score >= 0.85, seed=3)
    hits = served(feed(assurance, 2000, lambda score: score >= 0.85, seed=4))
    assert assurance.threshold is not None
    assert before is not None
    assert assurance.threshold > before
    assert len(hits) > 300
    assert hits.count(False) <= 0.05 * len(hits)


def test_near_misses_warn_of_hits() -> None:
    """They turn wrong more often than they were, and hits do not: serving stops before a hit is found wrong."""
    rng = random.Random(8)
    assurance = an_assurance()
    feed(assurance, 4000, lambda score: score >= 0.75 or rng.random() < 0.8)
    threshold = assurance.threshold
    assert threshold is not None
    feed(assurance, 500, lambda score: score >= threshold, seed=3)
    assert assurance.standing().num_alarms == 1
    assert assurance.tally.counts["hit_wrong"] == 0


def test_suspicion_looks_closer() -> None:
    """After a wrong label among hits a fifth of them is regenerated, until clean ones have calmed it."""
    assurance = an_assurance()
    feed(assurance, 8000)
    assert assurance.hit_rate == 0.02
    assurance.learn(Ruling("serve", 1.0, True, 0.02, 0.02), same=False)
    assert assurance.hit_rate == 0.2
    feed(assurance, 4000, seed=4)
    assert assurance.hit_rate == 0.02


def test_without_labels_serving_ends() -> None:
    """A shadow that is never run would let a rise pass unseen."""
    assurance = an_assurance()
    feed(assurance, 4000)
    num_served = 0
    while assurance.decide(1.0).action == "serve":
        num_served += 1
        assert num_served < 2000
    assert assurance.threshold is None


def test_labels_that_could_not_be_had_are_counted_and_prove_nothing() -> None:
    """`None` is neither right nor wrong."""
    assurance = an_assurance()
    for _ in range(1000):
        assurance.learn(assurance.decide(0.9), same=None)
    assert assurance.threshold is None
    assert assurance.tally.counts["observed_lost"] == 1000
    assert assurance.standing().error_upper95 == 1.0


def test_the_bound_of_the_hits_themselves_counts_their_labels_alone() -> None:
    """It is 1 before there are hits and comes down with them, more slowly than the bound that serving rests on."""
    assurance = an_assurance()
    feed(assurance, 250)
    assert assurance.standing().served_upper95 == 1.0
    feed(assurance, 30_000, seed=2)
    standing = assurance.standing()
    assert standing.error_upper95 < standing.served_upper95 < 0.05


def test_a_judge_known_to_err_is_allowed_for() -> None:
    """Equal answers called different in 5% of cases: unknown, nothing is served at 3%; told, it is, and later."""

    def judged(assurance: Assurance) -> list[bool]:
        rng, hits = random.Random(7), []
        for _ in range(12_000):
            ruling = assurance.decide(rng.uniform(0.9, 1.0))
            hits.append(ruling.action == "serve")
            if ruling.labelled:
                assurance.learn(ruling, same=rng.random() > 0.05)
        return hits

    assert not any(judged(an_assurance(0.03)))
    told = an_assurance(0.03, judge_false_alarm=0.05)
    hits = judged(told)
    assert hits.index(True) > 1000
    assert sum(hits[-3000:]) > 1500
    assert told.standing().error_upper95 <= 0.03


def test_state_is_kept_as_json_and_goes_on_where_it_was() -> None:
    """Exported and restored it rules and learns alike."""
    assurance = an_assurance()
    feed(assurance, 3000)
    state = json.loads(json.dumps(assurance.export()))
    again = Assurance.restore(state, assurance.aims, "test", random.Random(3))
    assert again.standing() == assurance.standing()
    assert again.threshold is not None
    assert again.export() == assurance.export()


def test_labels_serve_other_aims_as_far_as_they_reach() -> None:
    """A stricter rate is not served on labels that prove a looser one."""
    assurance = an_assurance()
    feed(assurance, 1500)
    assert assurance.threshold is not None
    assert Assurance.restore(assurance.export(), Aims(0.001), "test").threshold is None


@pytest.mark.parametrize(
    "damage", [{"source": "other"}, {"format": 0}, {"cuts": [{}]}, {"cuts": []}, {"near": None}, {"serving": 99}]
)
def test_state_of_another_source_or_of_none_is_refused(damage: dict[str, object]) -> None:
    """Labels of another embedder, decision or model prove nothing here; a damaged file neither."""
    assurance = an_assurance()
    feed(assurance, 3000)
    with pytest.raises(ValueError, match="labels"):
        Assurance.restore(assurance.export() | damage, assurance.aims, "test")


FORGED = [
    ("near", "counts", [[0, 0]]),
    ("near", "counts", [[1, 2]] * 6),
    ("near", "rise", "nan"),
    ("cuts", "era", 0),
    ("cuts", "score", 1.5),
    ("cuts", "rise", 1e400),
    ("served", "mass", 10**400),
    ("served", "wrong_mass", True),
]


@pytest.mark.parametrize(("part", "name", "value"), FORGED)
def test_numbers_that_no_labels_came_to_are_refused(part: str, name: str, value: object) -> None:
    """Whoever wrote them: they would fail later, where nobody expects it."""
    assurance = an_assurance()
    feed(assurance, 3000)
    state = assurance.export()
    damaged = state[part][0] if part == "cuts" else state[part]
    assert name in damaged
    damaged[name] = value
    with pytest.raises(ValueError, match="not the"):
        Assurance.restore(state, assurance.aims, "test")


def test_what_is_kept_does_not_grow_with_labels() -> None:
    """After 1,000 and after 20,000 candidates the state is about as large."""
    assurance, sizes = an_assurance(), []
    for number in (1000, 19_000):
        feed(assurance, number)
        sizes.append(len(json.dumps(assurance.export())))
    assert sizes[1] < 1.2 * sizes[0]


@pytest.mark.parametrize(
    "wrong", [{"max_error_rate": 0.0}, {"max_error_rate": 0.6}, {"hit_rate": 0.0}, {"judge_false_alarm": 0.5}]
)
def test_rates_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """Before anything is served by them."""
    with pytest.raises(ValueError, match="out of range"):
        Aims(**{"max_error_rate": 0.01} | wrong)
