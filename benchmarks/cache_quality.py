"""What the semantic cache serves of repeated questions, and how many traps it answers wrongly, on 298 public pairs and
on 400 pairs of conversations that `cache_pairs/conversations.py` makes.

    python benchmarks/cache_quality.py [--out FOLDER]

Five folds: a fold's model is fitted on our own pairs and the other folds' pairs, the threshold on the lower bound is
chosen on those pairs held out in turn, and the fold itself is then decided once. Conversations are decided by the
shipped model, with and without the scope key in front of it. Prints one JSON object; with --out
writes it as cache_quality.json and the whole curve as cache_quality.png, too. The data are described in
benchmarks/cache_pairs/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "benchmarks")]

from cache_pairs.conversations import conversation_figures  # noqa: E402 - after the path
from cache_pairs.fitting import (  # noqa: E402 - after the path
    NUM_FOLDS,
    Pairs,
    fit_with_knots,
    held_out_shares,
    measured,
    read_pairs,
    served,
    wilson_lower,
)
from forebay.cache.calibration import load_calibration  # noqa: E402 - after the path
from forebay.cache.features import NAMES  # noqa: E402 - after the path
from forebay.cache.volatile import depends_on  # noqa: E402 - after the path
from forebay.embedding.auto import load_embedder  # noqa: E402 - after the path

PAIRS = ROOT / "benchmarks" / "cache_pairs"
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# Of the pairs a threshold is chosen on: none of the public traps, and of ours no more than this share.
MAX_OWN_TRAPS = 0.001


def decided(own: Pairs, public: Pairs, embedder: str) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """(lower bound of every public pair by the model that has not seen it, whether it is served, the thresholds)."""
    bounds, hits, thresholds = np.zeros(len(public.y)), np.zeros(len(public.y), dtype=bool), []
    for fold in range(NUM_FOLDS):
        inside, outside = public.fold == fold, public.fold != fold
        training = own + public.only(outside)
        model, held_out = fit_with_knots(training, embedder)
        shares = held_out_shares(model, training, held_out)
        threshold = chosen_threshold(shares, training.y, len(own.y))
        thresholds.append(round(1 - threshold, 4))
        bounds[inside] = served(model, public.only(inside))
        hits[inside] = bounds[inside] >= threshold
    return bounds, hits, thresholds


def chosen_threshold(shares: np.ndarray, same: np.ndarray, num_own: int) -> float:
    """The lowest bound at which the training pairs, held out, allow serving."""
    own_traps = np.sort(shares[:num_own][~same[:num_own]])[::-1]
    public_traps = shares[num_own:][~same[num_own:]]
    least = max(own_traps[int(MAX_OWN_TRAPS * len(own_traps))], public_traps.max())
    return float(shares[shares > least].min())


def curve(bounds: np.ndarray, same: np.ndarray) -> list[dict[str, float]]:
    """At every bound that a pair has: the share of equal pairs served and of traps answered."""
    return [
        {
            "bound": round(float(bound), 5),
            "served": round(float((bounds[same] >= bound).mean()), 4),
            "traps": round(float((bounds[~same] >= bound).mean()), 4),
        }
        for bound in sorted(set(bounds[bounds > 0]), reverse=True)
    ]


def figures(hits: np.ndarray, public: Pairs) -> dict[str, Any]:
    wrong, right = int((hits & ~public.y).sum()), int((hits & public.y).sum())
    num_traps, num_equal = int((~public.y).sum()), int(public.y.sum())
    return {
        "served_of_equal": round(right / num_equal, 4),
        "served_interval95": _interval(right, num_equal),
        "traps_answered": wrong,
        "traps": num_traps,
        "traps_interval95": _interval(wrong, num_traps),
        "error_among_hits": round(wrong / max(1, wrong + right), 4),
    }


def by_kind(hits: np.ndarray, public: Pairs) -> dict[str, str]:
    kinds = [f"{row['kind']} ({row['style']})" for row in public.rows]
    of, found = Counter(kinds), Counter(kind for kind, hit in zip(kinds, hits, strict=True) if hit)
    return {kind: f"{found[kind]} of {of[kind]}" for kind in sorted(of)}


def _interval(count: int, total: int) -> list[float]:
    """Wilson's, two-sided 95%."""
    return [round(wilson_lower(count, total, 1.96), 4), round(1 - wilson_lower(total - count, total, 1.96), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", help="for `make bench-long`, which gives it to every benchmark; not used")
    options = parser.parse_args()
    embedder = load_embedder()
    own = measured(read_pairs(PAIRS / "pairs.jsonl"), embedder)
    public = measured(read_pairs(PAIRS / "fow.jsonl"), embedder)
    bounds, hits, thresholds = decided(own, public, embedder.name)
    own_alone = served(fit_with_knots(own, embedder.name)[0], public)
    steady = np.array([depends_on(row["a"]) is None and depends_on(row["b"]) is None for row in public.rows])
    cosine = public.x[:, NAMES.index("cosine")]
    result = {
        "pairs": len(public.y),
        "own_pairs": len(own.y),
        "embedder": embedder.name,
        "cross_validated": figures(hits, public) | {"max_error_rates_chosen": thresholds},
        "cross_validated_at_rate": {str(rate): figures(bounds >= 1 - rate, public) for rate in RATES},
        "without_messages_bound_to_a_moment_or_person": figures(hits & steady, public),
        "own_pairs_alone_at_rate": {str(rate): figures(own_alone >= 1 - rate, public) for rate in RATES},
        "cosine_with_an_oracles_threshold_at_1_trap": figures(cosine > np.sort(cosine[~public.y])[-2], public),
        "by_kind": by_kind(hits, public),
        "guards": {
            "traps": dict(Counter(map(str, public.guard[~public.y & ~public.passed]))),
            "equal": dict(Counter(map(str, public.guard[public.y & ~public.passed]))),
        },
        "conversations": conversation_figures(embedder, load_calibration(embedder.name)),
        "curve": curve(bounds, public.y),
    }
    print(json.dumps({name: value for name, value in result.items() if name != "curve"}, indent=1))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "cache_quality.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        _draw(result, curve(cosine, public.y), options.out / "cache_quality.png")


def _draw(result: dict[str, Any], plain: list[dict[str, float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    for label, points, style in (("decision", result["curve"], "-"), ("cosine alone", plain, "--")):
        x, y = ([100 * point[name] for point in points] for name in ("traps", "served"))
        axes.step([0, *x], [0, *y], where="post", linestyle=style, label=f"{label} (every threshold)")
    chosen = result["cross_validated"]
    low, high = chosen["served_interval95"]
    axes.errorbar(
        100 * chosen["traps_answered"] / chosen["traps"],
        100 * chosen["served_of_equal"],
        yerr=[[100 * (chosen["served_of_equal"] - low)], [100 * (high - chosen["served_of_equal"])]],
        fmt="o",
        color="black",
        capsize=4,
        label="thresholds chosen without the fold",
    )
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="traps answered wrongly (%)",
        ylabel="true repeats served (%)",
        xlim=(-0.3, 15),
        ylim=(0, 100),
        title=f"{result['pairs']} public pairs, {NUM_FOLDS}-fold cross-validation",
    )
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
