"""The packaged embedder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from forebay.embedding.auto import load_embedder
from forebay.embedding.base import Embedder
from forebay.embedding.minilm_impl.model_files import map_weights, packaged_model, read_shape
from forebay.errors import ConfigurationError


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


def test_vectors_are_unit_float32_of_the_stated_dimension(embedder: Embedder):
    """Every text, an empty and an overlong one as well, gets one vector of length one."""
    vectors = embedder.embed(["How do I bleed a radiator?", "", "word " * 5000, "¿Dónde está? 日本語 🙂"])
    assert [vector.shape for vector in vectors] == [(embedder.dimension,)] * 4
    assert all(vector.dtype == np.float32 for vector in vectors)
    assert [float(np.linalg.norm(vector)) for vector in vectors] == pytest.approx([1.0] * 4, abs=1e-5)


def test_a_batch_is_its_texts_one_by_one(embedder: Embedder):
    """A text's vector does not depend on what is embedded with it."""
    texts = ["A short one", "A rather longer text about nothing in particular, to differ in length", "x"]
    for text, vector in zip(texts, embedder.embed(texts), strict=True):
        assert np.array_equal(vector, embedder.embed([text])[0])


def test_meaning_decides_the_distance(embedder: Embedder):
    """A paraphrase lies nearer than another question in nearly the same words."""
    asked, paraphrase, other = embedder.embed(
        ["How do I cancel my order?", "How can I cancel an order?", "How do I cook my salmon?"]
    )
    assert asked @ paraphrase > 0.8 > 0.5 > asked @ other


def test_eight_bits_stay_near_the_models_own_vectors(embedder: Embedder):
    """The quantised graph computes what the model's float32 weights define (BERT, Devlin et al. 2019), within 2%."""
    text = "What does my car insurance cover?"
    [vector] = embedder.embed([text])
    assert float(vector @ _float32(text)) > 0.98


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    """The error says which file is missing, or that the architecture is another."""
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_embedder(tmp_path)
    config = json.loads((packaged_model() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=r"model\.safetensors"):
        load_embedder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(ConfigurationError, match="no BERT encoder"):
        load_embedder(tmp_path)


def _float32(text: str) -> np.ndarray:
    """The model by its definition, in numpy."""
    from math import erf

    from tokenizers import Tokenizer

    weights, shape = map_weights(packaged_model()), read_shape(packaged_model())
    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_padding()
    ids = tokenizer.encode(text).ids

    def norm(values: np.ndarray, name: str) -> np.ndarray:
        scaled = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def dense(values: np.ndarray, name: str) -> np.ndarray:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    kinds = {"word": ids, "position": list(range(len(ids))), "token_type": [0] * len(ids)}
    hidden = norm(
        sum(weights[f"embeddings.{kind}_embeddings.weight"][rows] for kind, rows in kinds.items()), "embeddings"
    )
    for layer in range(shape.num_layers):
        prefix = f"encoder.layer.{layer}."
        query, key, value = (
            dense(hidden, f"{prefix}attention.self.{kind}").reshape(len(ids), shape.num_heads, -1).transpose(1, 0, 2)
            for kind in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        hidden = norm(dense(mixed, f"{prefix}attention.output.dense") + hidden, f"{prefix}attention.output")
        wide = dense(hidden, f"{prefix}intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(erf)(wide / np.sqrt(2)))
        hidden = norm(dense(wide, f"{prefix}output.dense") + hidden, f"{prefix}output")
    mean = hidden.mean(0)
    return mean / np.linalg.norm(mean)
