"""The encoder at work: tokens, embedding layer, layers, mean, unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from forebay.embedding.minilm_impl.graph import encoder_graph
from forebay.embedding.minilm_impl.model_files import map_weights, read_shape
from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    from forebay.embedding.base import Vector


class MiniLm:
    """The model in `folder` (config.json, model.safetensors, tokenizer.json), mean-pooled, on one thread.

    Raises ConfigurationError for a folder without such a model.
    """

    def __init__(self, folder: Path) -> None:
        self._shape = read_shape(folder)
        self._session = _session(encoder_graph(map_weights(folder), self._shape))
        # Mapped anew: the pages that the layers were read from go with the first mapping.
        weights = map_weights(folder)
        self._words = weights["embeddings.word_embeddings.weight"]
        self._places = (
            weights["embeddings.position_embeddings.weight"][: self._shape.max_tokens]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = tuple(np.array(weights[f"embeddings.LayerNorm.{part}"]) for part in ("weight", "bias"))
        self._tokenizer = _tokenizer(folder, self._shape.max_tokens)
        self._name = f"{'all-MiniLM-L6-v2' if folder.name == 'model' else folder.name}/int8"

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return self._shape.hidden_size

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        return [self._embed(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def _embed(self, ids: list[int]) -> Vector:
        # The vocabulary's table stays in the mapped file: a text touches a few of its rows.
        summed = self._words[ids] + self._places[: len(ids)]
        centred = summed - summed.mean(-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(-1, keepdims=True) + self._shape.layer_norm_epsilon)
        embedded = (centred / spread * self._norm[0] + self._norm[1]).astype(np.float32)
        encoded = self._session.run(None, {"embedded": embedded[None]})[0][0]
        mean = encoded.mean(0)
        vector: Vector = mean / np.linalg.norm(mean)
        return vector


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the server's other cores have an engine to feed
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # an arena keeps what the longest text needed
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigurationError(f"{folder} holds no embedding model: tokenizer.json is missing.")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
