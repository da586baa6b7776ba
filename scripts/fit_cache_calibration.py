"""Fit the calibration that the semantic cache ships, and write the report of the fit.

    python scripts/fit_cache_calibration.py [--embedding-model FOLDER]

Reads benchmarks/cache_pairs/, writes server/forebay/cache/data/calibration-<embedder>.json and
docs/cache-calibration.md. The same pairs on the same machine give the same files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "benchmarks")]

from cache_pairs.fitting import (  # noqa: E402 - after the path
    Pairs,
    fingerprint,
    fit_with_knots,
    held_out_shares,
    measured,
    read_pairs,
    served,
)
from forebay.cache.calibration import Calibration, parse_calibration  # noqa: E402 - after the path
from forebay.cache.features import NAMES  # noqa: E402 - after the path
from forebay.embedding.auto import load_embedder  # noqa: E402 - after the path

PAIRS = ROOT / "benchmarks" / "cache_pairs"
DATA = ROOT / "server" / "forebay" / "cache" / "data"
REPORT = ROOT / "docs" / "cache-calibration.md"
RATES = (0.005, 0.01, 0.02, 0.05, 0.1)


def as_json(calibration: Calibration) -> str:
    """Six digits are more than the data knows."""

    def rounded(values: Any) -> Any:
        return [rounded(value) for value in values] if isinstance(values, list | tuple) else round(float(values), 6)

    fields = {
        "embedder": calibration.embedder,
        "features": list(NAMES),
        "fitted_on": fingerprint(PAIRS, DATA),
        "z": calibration.z,
        **{name: rounded(getattr(calibration, name)) for name in ("means", "scales", "weights", "factor", "knots")},
    }
    return json.dumps(fields, indent=None).replace('", "', '",\n "').replace("], ", "],\n ") + "\n"


def report(calibration: Calibration, pairs: Pairs, shares: Any, untouched: Pairs) -> str:
    """What the model was fitted on, what it does on pairs that it has not seen, and where it errs."""
    refused = Counter(str(guard) for guard in pairs.guard[~pairs.passed & ~pairs.y])
    wrongly = Counter(str(guard) for guard in pairs.guard[~pairs.passed & pairs.y])
    weights = sorted(zip(NAMES, calibration.weights, strict=False), key=lambda item: -abs(item[1]))
    rates = ("max_error_rate", "served of equal", "traps answered", "error among hits")
    lines = [
        "# The fit of the cache's calibration",
        "",
        "Written by `scripts/fit_cache_calibration.py`; [cache-decision.md](cache-decision.md) says what it means.",
        "",
        f"Embedder {calibration.embedder}; {len(pairs.y):,} pairs of our own ({int(pairs.y.sum()):,} with one answer, "
        f"{int((~pairs.y).sum()):,} traps). Guards refuse {sum(refused.values()):,} traps and "
        f"{sum(wrongly.values()):,} of the others before the model is asked.",
        "",
        "## Pairs held out by group (5 folds)",
        *_table(rates, _rates(shares, pairs)),
        f"## {len(untouched.y)} pairs never fitted on (`blind.txt`)",
        *_table(rates, _rates(served(calibration, untouched), untouched)),
        "## By kind, held out, at max_error_rate 0.01",
        *_table(("kind", "pairs", "answered", "refused by a guard"), _by_kind(pairs, shares)),
        "## Guards",
        *_table(
            ("guard", "traps refused", "equal pairs refused"),
            [(name, count, wrongly[name]) for name, count in refused.most_common()],
        ),
        "## Weights (log-odds for one standard deviation)",
        *_table(("feature", "weight"), [(name, f"{weight:+.2f}") for name, weight in weights if abs(weight) > 0.005]),
        "## Scores from which a pair may be served",
        *_table(("max_error_rate", "words left over", "nothing left over"), _thresholds(calibration)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _rates(shares: Any, pairs: Pairs) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for rate in RATES:
        hit = shares >= 1 - rate
        wrong, right = int((hit & ~pairs.y).sum()), int((hit & pairs.y).sum())
        share, among = right / pairs.y.sum(), wrong / max(1, wrong + right)
        found.append((rate, f"{share:.1%}", f"{wrong} of {int((~pairs.y).sum())}", f"{among:.2%}"))
    return found


def _thresholds(calibration: Calibration) -> list[tuple[object, ...]]:
    return [
        (
            rate,
            *(
                next((f"{score:.2f}" for score, share in knots if share >= 1 - rate), "none")
                for knots in calibration.knots
            ),
        )
        for rate in RATES
    ]


def _by_kind(pairs: Pairs, shares: Any) -> list[tuple[object, ...]]:
    kinds = [
        f"{'same' if row['same_answer'] else 'trap'}: {re.sub('^slot_.*', 'slot', row['kind'])}" for row in pairs.rows
    ]
    found: list[tuple[object, ...]] = []
    for kind in sorted(set(kinds)):
        chosen = [at for at, each in enumerate(kinds) if each == kind]
        found.append((kind, len(chosen), int((shares[chosen] >= 0.99).sum()), int((~pairs.passed[chosen]).sum())))
    return found


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    cells = [head, tuple("---" for _ in head), *rows]
    return ["", *("| " + " | ".join(str(cell) for cell in row) + " |" for row in cells), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding-model", type=Path)
    embedder = load_embedder(parser.parse_args().embedding_model)
    pairs = measured(read_pairs(PAIRS / "pairs.jsonl"), embedder)
    fitted, held_out = fit_with_knots(pairs, embedder.name)
    text = as_json(fitted)
    (DATA / f"calibration-{embedder.name.replace('/', '-').lower()}.json").write_text(text, encoding="utf-8")
    shipped = parse_calibration(text)
    untouched = measured(read_pairs(PAIRS / "blind.txt"), embedder)
    REPORT.write_text(report(shipped, pairs, held_out_shares(shipped, pairs, held_out), untouched), encoding="utf-8")


if __name__ == "__main__":
    main()
