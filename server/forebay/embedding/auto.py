"""Which embedder runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from forebay.embedding.base import Embedder
from forebay.errors import ConfigurationError

INSTALL_SEMANTIC = "`pip install 'forebay[semantic]'`"
EMBEDDER = "all-MiniLM-L6-v2/int8"
"""The packaged one's name."""


def check_embedder() -> None:
    """Whether the packaged one can be loaded, as far as that is seen without loading it. Raises ConfigurationError."""
    for package in ("numpy", "onnx", "onnxruntime", "tokenizers"):
        if find_spec(package) is None:
            raise ConfigurationError(f"The semantic cache needs `{package}`: {INSTALL_SEMANTIC}.")
    from forebay.embedding.minilm_impl.model_files import packaged_model

    packaged_model()


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
