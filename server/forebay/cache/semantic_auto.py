"""The semantic tier as the settings say."""

from __future__ import annotations

from dataclasses import replace

from forebay.cache.aims import Aims, read_aims
from forebay.cache.calibration import load_calibration
from forebay.cache.comparison import Comparison
from forebay.cache.costs import Costs
from forebay.cache.entries import Seal
from forebay.cache.label_file import LabelFile
from forebay.cache.labelling import Labelling
from forebay.cache.semantic import SemanticTier
from forebay.cache.stores.tiered import TieredStore
from forebay.cache.verifier import Verifier
from forebay.embedding.auto import EMBEDDER, check_embedder, load_embedder
from forebay.embedding.batcher import EmbeddingBatcher
from forebay.settings import Settings
from forebay.stores.database import Database


def build_semantic_tier(
    settings: Settings, database: Database, store: TieredStore, seal: Seal, verifier: Verifier | None
) -> SemanticTier:
    """Loads nothing yet. Raises ConfigurationError, also where a package is missing."""
    check_embedder()
    read = read_aims(settings.cache_max_error_rate, settings.cache_error_rates, settings.cache_shadow_rate)

    def aims_of(owner: str) -> Aims:
        aims = read(owner)
        return aims if verifier is None else replace(aims, judge_miss=aims.judge_miss + verifier.judge_miss)

    return SemanticTier(
        EmbeddingBatcher(load_embedder),
        load_calibration(EMBEDDER),
        store,
        seal,
        LabelFile(database, aims_of),
        Costs(strict=settings.cache_cost_rule),
        verifier,
        epoch=settings.cache_epoch,
    )


def build_labelling(semantic: SemanticTier) -> Labelling:
    return Labelling(Comparison(semantic.embedder, semantic.verifier))
