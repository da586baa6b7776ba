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
from support.told_word import ToldWord

LONG = "You can return what you have bought within the time that the law gives you, if it is as it was. " * 7


class AtOnce:
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.num_texts = 0

    async def embed(self, text: str, *, apart: str = "") -> Vector:
        self.num_texts += 1
        return self._embedder.embed([text])[0]


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
    assert await Comparison(embedder, None).same("?", one, other, "acme")
    assert await Comparison(embedder, None).same("?", other, one, "acme")


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
    assert not await Comparison(embedder, None).same("?", one, other, "acme")


async def test_marks_of_lists_after_many_empty_lines(embedder: TextEmbedder) -> None:
    """They count for nothing; a text of line ends alone is read once, not from each of them anew."""
    lines = "\n" * 200_000
    assert await Comparison(embedder, None).same("?", f"{lines} - Oslo\n\t+ Rome", "Oslo Rome", "acme")


async def test_a_model_that_has_earned_it_has_the_last_word(embedder: TextEmbedder) -> None:
    """Of what is not clear, other numbers excepted; one that has not earned it says nothing, which is no."""
    pair = (f"{LONG} The end.", f"{LONG} An end.")
    assert await Comparison(embedder, ToldWord(of_answers=True)).same("?", *pair, "acme")
    assert not await Comparison(embedder, ToldWord(of_answers=False)).same("?", *pair, "acme")
    assert not await Comparison(embedder, ToldWord(of_answers=None)).same("?", *pair, "acme")
    assert not await Comparison(embedder, ToldWord(of_answers=True)).same(
        "?", "It costs 5 euros.", "It costs 6 euros.", "acme"
    )
