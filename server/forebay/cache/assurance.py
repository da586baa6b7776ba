"""Serves hits only while labels prove that errors among them stay below the rate that the operator set.

What is claimed. Let a candidate at or above a cut be wrong with chance mu, given all before. With a chance of at least
1 - alpha, whenever hits are served from a cut on, the mean of mu over the labels of that cut is below `max_error_rate`
(`bound`), though the cut was picked among several (`cuts`) and looked at after every label. Labels are drawn with
probabilities that are fixed before outcomes are known and weigh as the reciprocal, so they stand for all candidates.

From labels to hits. While the tier observes, every candidate is labelled, so most evidence is older than the hits it
vouches for. What could make hits worse than what was observed, and what is done:

- Errors may rise. Labels of hits and near misses go on, detectors (`drift`) watch both, under suspicion more hits are
  labelled, an alarm forgets the evidence: a stricter cut serves, or none, until new labels prove it.
- A request that is served stores no answer of its own, so a wrong hit may be repeated, for the same text or one like
  it. Each time it may be regenerated; then the answer is stored, and found instead. Near misses store theirs anyway.

`served` bounds the errors among the very hits served, whatever the requests are and however they drift: there only
the drawing of labels is random. It needs many hits to say much, and is for reading.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Self

from forebay.cache.aims import Aims
from forebay.cache.bound import Evidence
from forebay.cache.cuts import Cuts
from forebay.cache.drift import NearMisses
from forebay.cache.labels import Ruling, Tally
from forebay.cache.numbers import count, number
from forebay.cache.standing import Standing, standing_of

_NEARLY = 0.8
_STARVED = 20
_FORMAT = 1


class Assurance:
    """For one group of requests that are answered for together, a tenant's, and one kind of score. No locks, no I/O."""

    def __init__(self, aims: Aims, source: str, draw: random.Random | None = None) -> None:
        """`source` names what makes scores and answers: decision, embedder, model. `draw` picks what is labelled."""
        self.aims = aims
        self._source = source
        self._draw = draw or random.Random()
        self._pilots: list[float] = []
        self._cuts = Cuts(())
        self._near = NearMisses(0)
        self._serving: int | None = None
        self._target = 0
        self._proven_at: int | None = None
        self._num_labels = 0
        self._num_alarms = 0
        self._num_hits = 0
        self._unlabelled_hits = 0
        self._served = Evidence()
        self._upper = (-1, 1.0)
        self.num_changes = 0
        self.tally = Tally()

    @property
    def source(self) -> str:
        return self._source

    @property
    def threshold(self) -> float | None:
        """Least score that is served; None while the tier observes."""
        return None if self._serving is None else self._cuts[self._serving].score

    @property
    def hit_rate(self) -> float:
        """Share of the hits that is labelled now."""
        suspicious = self._serving is not None and (
            self._cuts[self._serving].detector.suspicious or self._near.detector.suspicious
        )
        return self.aims.suspicious_rate if suspicious else self.aims.hit_rate

    def decide(self, score: float) -> Ruling:
        """What to do with the best candidate for a request."""
        self.num_changes += 1
        wanted = score >= self.aims.floor
        if not len(self._cuts):
            if wanted:
                self._pilot(score)
            return Ruling("observe" if wanted else "miss", score, wanted, float(wanted), 1.0)
        self._cuts.seen(score)
        threshold = self.threshold
        if threshold is None:
            if score >= self._cuts[self._target].score:
                return Ruling("observe", score, True, 1.0, 1.0)
            return Ruling("miss", score, wanted, float(wanted), 1.0)
        rate = self.hit_rate
        if score < threshold:
            return Ruling("miss", score, wanted, float(wanted), rate)
        labelled = self._draw.random() < rate
        self._count_hit(labelled)
        return Ruling("serve", score, labelled, rate, rate)

    def learn(self, ruling: Ruling, *, same: bool | None) -> None:
        """The label that a ruling asked for. None: it could not be had, for reasons that have nothing to do with the
        outcome; of a judge who cannot tell it is False.
        """
        self.num_changes += 1
        self.tally.add(ruling.action, ruling.score, same)
        if same is None or not len(self._cuts):
            return
        self._num_labels += 1
        if ruling.action == "serve":
            self._unlabelled_hits = 0
            self._served.mass += self.aims.hit_rate
            if not same:
                self._served.add_wrong(self.aims.hit_rate / ruling.probability)
        band = self._cuts.learn(ruling.score, ruling.weight, self.aims.allowed, wrong=not same)
        self._near.add(band, wrong=not same, watched=self._serving is not None and band > self._serving)
        self._choose()

    def standing(self) -> Standing:
        """What an operator must see."""
        return standing_of(
            self.aims,
            self._cuts,
            self._serving,
            self._target,
            self._served,
            self._num_hits,
            self.hit_rate,
            self._num_alarms,
            self.tally,
        )

    @property
    def error_upper95(self) -> float | None:
        """That of `Standing`, while hits are served; reckoned once for each label."""
        if self._serving is None:
            return None
        if self._upper[0] != self._num_labels:
            self._upper = self._num_labels, self.standing().error_upper95
        return self._upper[1]

    def export(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {
            "format": _FORMAT,
            "source": self._source,
            "pilots": list(self._pilots),
            "cuts": self._cuts.export(),
            "near": self._near.export(),
            "serving": self._serving,
            "proven_at": self._proven_at,
            "num_labels": self._num_labels,
            "num_alarms": self._num_alarms,
            "num_hits": self._num_hits,
            "served": self._served.export(),
            "tally": self.tally.export(),
        }

    @classmethod
    def restore(cls, exported: Mapping[str, Any], aims: Aims, source: str, draw: random.Random | None = None) -> Self:
        """What `export` wrote, perhaps under other aims. Raises ValueError for anything else, and where the labels are
        of another source: they say nothing of this one.
        """
        if exported.get("format") != _FORMAT or exported.get("source") != source:
            raise ValueError("labels of another decision, embedder or model, or of another version")
        assurance = cls(aims, source, draw)
        try:
            assurance._take(exported)
        except (KeyError, TypeError, IndexError, ArithmeticError) as exc:
            raise ValueError("not the state of labels") from exc
        return assurance

    def _take(self, exported: Mapping[str, Any]) -> None:
        self._pilots = [number(score, most=1.0) for score in exported["pilots"]][: self.aims.num_pilots]
        self._cuts = Cuts.restore(exported["cuts"])
        self._near = NearMisses.restore(exported["near"], len(self._cuts) + 1 if len(self._cuts) else 0)
        serving, proven_at = exported["serving"], exported["proven_at"]
        self._serving = None if serving is None else range(len(self._cuts))[count(serving)]
        self._proven_at = None if proven_at is None else count(proven_at)
        self._num_labels, self._num_alarms = count(exported["num_labels"]), count(exported["num_alarms"])
        self._num_hits = count(exported["num_hits"])
        self._served = Evidence.restore(exported["served"])
        self.tally = Tally.restore(exported["tally"])
        if len(self._cuts):
            self._choose()

    def _pilot(self, score: float) -> None:
        self._pilots.append(score)
        if len(self._pilots) >= self.aims.num_pilots:
            self._cuts, self._pilots = Cuts(self._pilots), []
            self._near = NearMisses(len(self._cuts) + 1)

    def _count_hit(self, labelled: bool) -> None:
        self._num_hits += 1
        if not labelled:
            self._served.mass += self.aims.hit_rate
        self._unlabelled_hits += 1
        if self._unlabelled_hits * self.aims.hit_rate > _STARVED:
            # Labels do not come: nobody would notice a rise.
            self._stop()

    def _choose(self) -> None:
        """Serve from the loosest cut on that is proven good."""
        if self._serving is not None:
            if self._near.detector.alarmed:
                self._forget(0)
            elif self._cuts[self._serving].detector.alarmed:
                self._forget(self._serving)
        self._cuts.renew(self.aims.allowed)
        good = self._cuts.loosest_good(self.aims.allowed, self.aims.alpha)
        self._target = self._cuts.loosest_plausible(self.aims.allowed)
        if good is None:
            if self._serving is not None:
                self._stop()
        elif self._serving is not None or self._worth_beginning(good):
            self._serving = good

    def _forget(self, first: int) -> None:
        self._num_alarms += 1
        self._near = NearMisses(len(self._cuts) + 1)
        self._cuts.forget(first)

    def _worth_beginning(self, good: int) -> bool:
        """A looser cut is soon proven while everything is labelled, and slowly once hits are served."""
        if self._proven_at is None:
            self._proven_at = self._num_labels
        nearly = self._cuts[good].num_candidates >= _NEARLY * self._cuts[self._target].num_candidates
        return nearly or self._num_labels >= 2 * self._proven_at

    def _stop(self) -> None:
        self._serving = self._proven_at = None
        self._unlabelled_hits = 0
