"""What makes scores and answers, in words: labels of one source say nothing of another."""

from __future__ import annotations

import re

from forebay.cache.calibration import Calibration, load_calibration
from forebay.cache.decision import VERSION
from forebay.embedding.auto import EMBEDDER

_EPOCH = re.compile(r"epoch-\d+")


def maker_of(calibration: Calibration, epoch: int) -> str:
    """What a source begins with: the decision, the embedder with its calibration, and the operator's epoch; the model
    follows, and whether it is asked."""
    return f"decision-{VERSION} {calibration.name}" + (f" epoch-{epoch}" if epoch else "")


def is_made_here(source: str, epoch: int) -> bool:
    """Whether it begins as this installation's do, in this epoch. Of the model nothing is known here."""
    made, parts = maker_of(load_calibration(EMBEDDER), epoch).split(" "), source.split(" ")
    if parts[: len(made)] != made:
        return False
    return epoch > 0 or _EPOCH.fullmatch(" ".join(parts[len(made) : len(made) + 1])) is None
