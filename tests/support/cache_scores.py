"""The shipped embedder and decision on the texts of the generated stream, each text and pair taken once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from forebay.cache.analysis import match_form
from forebay.cache.calibration import load_calibration
from forebay.cache.decision import decide
from forebay.embedding.auto import load_embedder
from support.cache_stream import Score
from support.cache_world import World

NUM_NEIGHBOURS = 64


def scored(world: World) -> tuple[World, Score]:
    """The world with its texts' neighbours, and the score of the decision; 0 where a guard refuses."""
    embedder = load_embedder()
    vectors = np.stack([vector for text in world.texts for vector in embedder.embed([match_form(text)])])
    calibration = load_calibration(embedder.name)

    @lru_cache(None)
    def score(asked: int, stored: int) -> float:
        cosine = float(vectors[asked] @ vectors[stored])
        return decide(world.texts[asked], world.texts[stored], cosine, calibration).probability.score

    return world.with_nearest(nearest(vectors)), score


def nearest(vectors: npt.NDArray[np.float32]) -> list[list[int]]:
    """For each unit vector the numbers of those with the highest cosine, highest first."""
    near = []
    number = min(NUM_NEIGHBOURS, len(vectors) - 1)
    for start in range(0, len(vectors), 256):
        cosines = vectors[start : start + 256] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -1.0  # not itself
        chosen = np.argpartition(-cosines, number, axis=1)[:, :number]
        order = np.argsort(-np.take_along_axis(cosines, chosen, 1), axis=1)
        near.append(np.take_along_axis(chosen, order, 1))
    rows: list[list[int]] = np.concatenate(near).tolist()
    return rows
