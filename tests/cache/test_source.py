"""For what labels count, as far as it is known without a server."""

from __future__ import annotations

from dataclasses import replace

from forebay.cache.calibration import load_calibration
from forebay.cache.source import is_made_here, maker_of
from forebay.embedding.auto import EMBEDDER


def test_a_source_begins_with_what_made_the_scores():
    """Another decision, calibration, embedder or epoch is told; the model is not known here, whatever its name."""
    shipped = load_calibration(EMBEDDER)
    for epoch in (0, 3):
        made = maker_of(shipped, epoch)
        assert is_made_here(f"{made} a model@r1", epoch)
        assert is_made_here(f"{made} epoch-3@r1", epoch)
        assert not is_made_here(f"{made} a model@r1", 3 - epoch)
        assert not is_made_here(f"{maker_of(replace(shipped, z=9.0), epoch)} a model@r1", epoch)
        assert not is_made_here(f"decision-0 {made.partition(' ')[2]} a model@r1", epoch)
