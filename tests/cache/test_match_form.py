"""What of a message is embedded, and what keeps its answer out of the semantic tier."""

from __future__ import annotations

import pytest

from forebay.cache.analysis import MAX_WORDS, analyse, match_form
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


@pytest.mark.parametrize("text", ["a " * 241, "qxz! " * 121, "ﷺ " * 120, "a" * 2001])
def test_what_is_too_long_is_not_taken_apart(text: str):
    """Words and signs are counted, and letters as they are when ligatures are spread out: it stays as it is, and only
    the same text is the same."""
    assert match_form(text) == text
    assert analyse(text).num_words > MAX_WORDS
    assert analyse(text).words == (text,)


def test_manners_do_not_make_a_message_too_long():
    """What is left of 240 words and signs counts."""
    asked = "how do i reset my password " * 19
    text = "please, " * 60 + asked
    assert match_form(text) == asked.strip()
    assert analyse(text).num_words <= MAX_WORDS


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
