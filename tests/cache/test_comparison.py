"""Whether two answers say the same: in doubt they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forebay.cache.comparison import Comparison
from forebay.embedding.auto import load_embedder
from forebay.embedding.base import Embedder
from forebay.embedding.batcher import TextEmbedder

if TYPE_CHECKING:
    from forebay.embedding.base import Vector

LONG = "You can return what you have bought within the time that the law gives you, if it is as it was. " * 7


class AtOnce:
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.num_texts = 0

    async def embed(self, text: str) -> Vector:
        self.num_texts += 1
        return self._embedder.embed([text])[0]


class Model:
    """Says always the same."""

    name = "model"

    def __init__(self, says: bool | None) -> None:
        self.says = says

    async def same_question(self, asked: str, stored: str) -> float | None:
        return None

    async def same_answer(self, question: str, one: str, other: str) -> bool | None:
        return self.says


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return AtOnce(load_embedder())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Oslo.", "oslo"),
        ("**Oslo** is the\n\ncapital.", "Oslo is the capital"),
        ("You can return it within 14 days.", "You may return it within 14 days."),
        ("The capital of Norway is Oslo.", "Oslo is the capital of Norway."),
        (f"{LONG} The end.", f"{LONG} *The end*"),
    ],
)
async def test_the_same(embedder: TextEmbedder, one: str, other: str) -> None:
    """Formatting, case and spaces count for nothing, and of short answers other words do not, either."""
    assert await Comparison(embedder, None).same("?", one, other)
    assert await Comparison(embedder, None).same("?", other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("You can return it within 14 days.", "You can return it within 15 days."),
        ("You can return it within 14 days.", "You cannot return it within 14 days."),
        ("Yes.", "No."),
        ("The capital of Norway is Oslo.", "The capital of Norway is Bergen."),
        ("Press the red button to open the door.", "Press the red button to close the door."),
        (f"{LONG} The end.", f"{LONG} An end."),
        ("Oslo.", ""),
    ],
)
async def test_not_the_same(embedder: TextEmbedder, one: str, other: str) -> None:
    """Another number, negation, name or opposite; long ones that are not the same words."""
    assert not await Comparison(embedder, None).same("?", one, other)


async def test_a_model_that_has_earned_it_has_the_last_word(embedder: TextEmbedder) -> None:
    """Of what is not clear, other numbers excepted; one that has not earned it says nothing, which is no."""
    pair = (f"{LONG} The end.", f"{LONG} An end.")
    assert await Comparison(embedder, Model(True)).same("?", *pair)
    assert not await Comparison(embedder, Model(False)).same("?", *pair)
    assert not await Comparison(embedder, Model(None)).same("?", *pair)
    assert not await Comparison(embedder, Model(True)).same("?", "It costs 5 euros.", "It costs 6 euros.")
