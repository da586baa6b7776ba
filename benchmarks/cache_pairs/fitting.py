"""Fitting the cache's calibration: pairs to features, features to a logistic model, held-out scores to knots.

numpy only. Everything is deterministic: folds come from the groups' names, the optimiser from zero.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay.cache.alignment import align
from forebay.cache.analysis import analyse, match_form
from forebay.cache.calibration import Calibration, Knots
from forebay.cache.features import NAMES, NOTHING_LEFT, features
from forebay.cache.guards import refusal
from forebay.embedding.base import Embedder

HERE = Path(__file__).parent
NUM_FOLDS = 5
RIDGE = 2.0
Z = 1.645  # one-sided 95%
WINDOWS = (150, 300, 600, 1200, 2400)
KNOT_EVERY = 10
# What can only speak for a pair and what only against it; the others are free. Data too poor in one kind of trap must
# not teach that a replaced word is a good sign.
FOR = [
    "cosine",
    "cosine_above_80",
    "cosine_above_90",
    "cosine_above_95",
    "coverage",
    "same_words",
    "nothing_left",
    "typos",
    "synonyms",
    "derived",
    "related",
]
AGAINST = [
    "replaced_any",
    "replaced",
    "added_any",
    "added",
    "light_added",
    "function_changed",
    "weighty_changed",
    "person_changed",
    "tense_changed",
    "asks_differ",
    "asks_missing_hard",
    "asks_missing",
    "order",
    "governors_changed",
    "length_ratio",
    "replaced_far",
    "added_far",
]


@dataclass(frozen=True)
class Pairs:
    """Rows as they were read, `x` (rows, features), `y` same answer, `guard` the refusing guard's name or ""."""

    rows: list[dict[str, Any]]
    x: np.ndarray
    y: np.ndarray
    guard: np.ndarray

    @property
    def passed(self) -> np.ndarray:
        return np.asarray(self.guard == "")

    @property
    def is_whole(self) -> np.ndarray:
        return np.asarray(self.x[:, NOTHING_LEFT] == 1)

    @property
    def fold(self) -> np.ndarray:
        return np.array([zlib.crc32(str(row["group"]).encode()) % NUM_FOLDS for row in self.rows])

    def only(self, chosen: np.ndarray) -> Pairs:
        rows = [row for row, is_chosen in zip(self.rows, chosen, strict=True) if is_chosen]
        return Pairs(rows, self.x[chosen], self.y[chosen], self.guard[chosen])

    def __add__(self, other: Pairs) -> Pairs:
        parts = ((getattr(each, name) for each in (self, other)) for name in ("x", "y", "guard"))
        return Pairs(self.rows + other.rows, *(np.concatenate(list(part)) for part in parts))


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Rows with `group`, `kind`, `a`, `b`, `same_answer`, from JSON lines or `same or trap | kind | a | b`.

    A row without a group is one of its own.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".jsonl":
        rows = map(json.loads, lines)
        return [{"kind": row.get("category"), "group": row.get("id"), **row} for row in rows]
    parts = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return [
        {"group": first, "kind": kind, "a": first, "b": second, "same_answer": label == "same"}
        for label, kind, first, second in parts
    ]


def fingerprint(pairs: Path, data: Path) -> str:
    """Of everything a fit depends on but the code: the pairs and the lexicon."""
    files = (pairs / "pairs.jsonl", data / "english.toml", data / "relations.txt.gz", data / "words.txt.gz")
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def measured(rows: Sequence[dict[str, Any]], embedder: Embedder) -> Pairs:
    texts = sorted({match_form(row[side]) for row in rows for side in "ab"})
    vectors = dict(zip(texts, embedder.embed(texts), strict=True))
    values, guards = [], []
    for row in rows:
        first, second = analyse(row["a"]), analyse(row["b"])
        alignment = align(first, second)
        cosine = float(vectors[match_form(row["a"])] @ vectors[match_form(row["b"])])
        values.append(features(first, second, alignment, cosine))
        refused = refusal(first, second, alignment)
        guards.append("" if refused is None else refused.guard)
    labels = np.array([row["same_answer"] for row in rows], dtype=bool)
    return Pairs(list(rows), np.array(values, dtype=np.float64), labels, np.array(guards))


def fit(pairs: Pairs, embedder: str, knots: tuple[Knots, Knots] = ((), ())) -> Calibration:
    """Logistic regression on what the guards let pass, with bounded signs and a ridge, and its sandwich covariance."""
    kept = pairs.only(pairs.passed)
    means, scales = kept.x.mean(0), kept.x.std(0) + 1e-6
    design = np.column_stack([(kept.x - means) / scales, np.ones(len(kept.x))])
    weights = _minimised(design, kept.y.astype(float))
    return Calibration(
        embedder=embedder,
        means=tuple(means),
        scales=tuple(scales),
        weights=tuple(weights),
        factor=tuple(map(tuple, _covariance_factor(design, kept, weights))),
        z=Z,
        knots=knots,
    )


def scores(calibration: Calibration, pairs: Pairs) -> np.ndarray:
    """The score's lower end for every pair, -inf where a guard refuses: what the knots are over."""
    design = np.column_stack([(pairs.x - calibration.means) / calibration.scales, np.ones(len(pairs.x))])
    spread = np.linalg.norm(design @ np.array(calibration.factor).T, axis=1)
    return np.where(pairs.passed, design @ np.array(calibration.weights) - calibration.z * spread, -np.inf)


def held_out_scores(pairs: Pairs, embedder: str) -> np.ndarray:
    """Every pair's score by a model that has not seen its group."""
    found = np.full(len(pairs.y), -np.inf)
    for fold in range(NUM_FOLDS):
        found[pairs.fold == fold] = scores(
            fit(pairs.only(pairs.fold != fold), embedder), pairs.only(pairs.fold == fold)
        )
    return found


def fit_with_knots(pairs: Pairs, embedder: str) -> tuple[Calibration, np.ndarray]:
    """The model on all pairs with knots from held-out scores, and those scores."""
    held_out = held_out_scores(pairs, embedder)
    rest, whole = (knots_of(held_out[chosen], pairs.y[chosen]) for chosen in (~pairs.is_whole, pairs.is_whole))
    return fit(pairs, embedder, (rest, whole)), held_out


def held_out_shares(calibration: Calibration, pairs: Pairs, held_out: np.ndarray) -> np.ndarray:
    """The lower bound that the knots give to held-out scores."""
    found = np.zeros(len(held_out))
    for knots, chosen in zip(calibration.knots, (~pairs.is_whole, pairs.is_whole), strict=True):
        places, shares = map(np.array, zip(*knots, strict=True))
        at = np.searchsorted(places, held_out[chosen], side="right")
        found[chosen] = np.where(at > 0, shares[at - 1], 0.0)
    return found


def served(calibration: Calibration, pairs: Pairs) -> np.ndarray:
    """The lower bound for every pair, 0 where a guard refuses."""
    return np.array([
        calibration.probability(values).lower if passed else 0.0
        for values, passed in zip(pairs.x.tolist(), pairs.passed, strict=True)
    ])  # fmt: skip


def knots_of(held_out: np.ndarray, same: np.ndarray) -> Knots:
    """(score, lower bound on the share of equal answers among pairs of this score), increasing.

    If that share grows with the score, the pairs just below a score bound it from below: Wilson's bound over the
    nearest 150 of them, 300, and so on, the best of these, and what lower scores have shown.
    """
    kept = np.isfinite(held_out)
    order = np.argsort(held_out[kept], kind="stable")
    ranked, equal = held_out[kept][order], np.concatenate([[0], np.cumsum(same[kept][order])])
    knots = [(float(ranked[0]), 0.0)]
    for end in range(WINDOWS[0], len(ranked) + 1, KNOT_EVERY):
        shares = [wilson_lower(int(equal[end] - equal[end - size]), size) for size in WINDOWS if size <= end]
        if max(shares) > knots[-1][1] + 1e-4:
            knots.append((float(ranked[end - 1]), max(shares)))
    return tuple(knots)


def wilson_lower(successes: int, total: int, z: float = Z) -> float:
    """Wilson's score interval, lower end (Wilson 1927)."""
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return float((centre - spread) / (1 + z * z / total))


def _minimised(design: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accelerated projected gradient (Beck and Teboulle 2009) on the mean log loss plus the ridge."""
    low = np.array([0.0 if name in FOR else -np.inf for name in NAMES] + [-np.inf])
    high = np.array([0.0 if name in AGAINST else np.inf for name in NAMES] + [np.inf])
    ridge = np.append(np.full(len(NAMES), RIDGE / len(labels)), 0.0)
    step = 1.0 / (0.25 * np.linalg.norm(design, 2) ** 2 / len(labels) + ridge.max())
    weights = ahead = np.zeros(design.shape[1])
    momentum = 1.0
    for _ in range(4000):
        residual = _sigmoid(design @ ahead) - labels
        moved: np.ndarray = np.clip(ahead - step * (design.T @ residual / len(labels) + ridge * ahead), low, high)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weights)
        if np.abs(moved - weights).max() < 1e-7:
            return moved
        weights, momentum = moved, following
    return weights


def _covariance_factor(design: np.ndarray, pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    """Rows r with the covariance of the weights = sum of outer products: the sandwich over groups."""
    chance = _sigmoid(design @ weights)
    bread = np.linalg.inv((design * (chance * (1 - chance))[:, None]).T @ design + RIDGE * np.eye(design.shape[1]))
    gradients = design * (chance - pairs.y)[:, None]
    _, member = np.unique([str(row["group"]) for row in pairs.rows], return_inverse=True)
    summed = np.zeros((member.max() + 1, design.shape[1]))
    np.add.at(summed, member, gradients)
    covariance = bread @ (summed.T @ summed) @ bread
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -30, 30))))
