"""Groups answer for themselves: labels of one earn and spoil nothing for another."""

from __future__ import annotations

import random

import pytest

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.groups import Groups, State


def some(saved: dict[str, State] | None = None, source: str = "model a", most: int = 10) -> Groups:
    return Groups(lambda _: Aims(0.05), source, {} if saved is None else saved, most, random.Random(2))


def learn(assurance: Assurance, number: int = 600, *, same: bool = True) -> None:
    for _ in range(number):
        ruling = assurance.decide(0.9)
        if ruling.labelled:
            assurance.learn(ruling, same=same)


def test_one_tenants_labels_let_it_serve_and_nobody_else() -> None:
    """The other one still observes; and bad labels of that one end nothing of the first."""
    groups = some()
    learn(groups.of("one"))
    learn(groups.of("other"), same=False)
    assert groups.of("one").threshold is not None
    assert groups.of("other").threshold is None


def test_a_group_that_was_put_away_comes_back_as_it_was() -> None:
    """Only so many are in memory; the one used longest ago is handed over."""
    saved: dict[str, State] = {}
    groups = some(saved, most=2)
    learn(groups.of("one"))
    known = groups.of("one").export()
    groups.of("two")
    groups.of("three")
    assert [name for name, _ in groups] == ["two", "three"]
    assert saved["one"] == known
    assert groups.of("one").export() == known


def test_saved_groups_outlive_the_process() -> None:
    """What `save` handed over is found by the next one."""
    saved: dict[str, State] = {}
    groups = some(saved)
    learn(groups.of("one"))
    groups.save()
    assert some(saved).of("one").threshold == groups.of("one").threshold


def test_labels_of_another_model_are_not_taken_over() -> None:
    """With the model, the embedder or the decision changed a group observes anew."""
    saved: dict[str, State] = {}
    groups = some(saved)
    learn(groups.of("one"))
    groups.save()
    assert some(saved, source="model b").of("one").threshold is None


def test_labels_are_imported_and_forgotten() -> None:
    """An operator's import lets a group serve at once; forgetting lets it observe; a foreign import is refused."""
    groups = some()
    learn(groups.of("one"))
    state = groups.of("one").export()
    elsewhere = some()
    elsewhere.take("new", state)
    assert elsewhere.of("new").threshold is not None
    elsewhere.forget("new")
    assert elsewhere.of("new").threshold is None
    with pytest.raises(ValueError, match="another"):
        some(source="model b").take("new", state)
