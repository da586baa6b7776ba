"""What must agree between two messages: each guard refuses what it is for, says why, and lets repeats pass."""

from __future__ import annotations

import cProfile
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache.alignment import align
from forebay.cache.analysis import analyse
from forebay.cache.guards import GUARDS, Refusal, refusal
from forebay.cache.normal_form import normalised

TRAPS = {
    "quantities": [
        ("Track order 88213", "Track order 88231"),
        ("How long do I bake a 2 kg loaf?", "How long do I bake a 3 kg loaf?"),
        ("Is 15% of 80 more than 10?", "Is 50% of 80 more than 10?"),
        ("Wake me at 7am", "Wake me at 7pm"),
        ("Can I pay £40 in cash?", "Can I pay $40 in cash?"),
        ("Upgrade from 3.1 to 3.10", "Upgrade from 3.1 to 3.11"),
        ("A room for two nights", "A room for three nights"),
    ],
    "names": [
        ("Is there a bus to Ghent?", "Is there a bus to Bruges?"),
        ("Email Priya the minutes", "Email Pavel the minutes"),
        ("What's on in March?", "What's on in May?"),
        ("Are you open on Tuesday?", "Are you open on Thursday?"),
        ("Is zolpidem safe?", "Is zopiclone safe?"),
    ],
    "negation": [
        ("Which tariffs include data?", "Which tariffs don't include data?"),
        ("Should I water it?", "Should I avoid watering it?"),
        ("Is it legal to park here?", "Is it illegal to park here?"),
    ],
    "opposites": [
        ("How do I lock the door?", "How do I unlock the door?"),
        ("Turn on the heating", "Turn off the heating"),
        ("What are the pros of leasing?", "What are the cons of leasing?"),
        ("How can I raise the limit?", "How can I decrease the limit?"),
        ("Parcels over 5 kg", "Parcels under 5 kg"),
    ],
    "owners": [("How do I renew my pass?", "How do I renew my daughter's pass?")],
    "persons": [("Can I call you?", "Can you call me?"), ("What did he tell her?", "What did she tell him?")],
    "decisive": [
        ("Can I log in with a code?", "Can I log in without a code?"),
        ("When is a bus?", "When is the last bus?"),
    ],
    "roles": [
        ("Move $5 from savings to checking", "Move $5 from checking to savings"),
        ("How do I get to Ghent from Bruges?", "How do I get to Bruges from Ghent?"),
        ("How many cups are in a pint?", "How many pints are in a cup?"),
        ("Book it from the 3rd to the 5th", "Book it from the 5th to the 3rd"),
    ],
    "question": [("Why is the pump hot?", "When is the pump hot?"), ("Who fixed it?", "How often is it fixed?")],
    "code": [("Explain `a += 1`", "Explain `a -= 1`"), ("What does --force do?", "What does --dry-run do?")],
    "language": [("How do I pay the bill?", "Wie bezahle ich die Rechnung?")],
    "content": [("Yes", "Go on")],
    "length": [(f"Sum up: {'very ' * 150}long", f"Sum up: {'very ' * 151}long"), ("a " * 3000, "b " * 3000)],
}  # fmt: skip
REPEATS = [
    ("How do I bleed a radiator?", "hi, how can i bleed a raditor please"),
    ("Can I return it after two weeks?", "After 14 days, can I return it?"),
    ("I can't log in to my account", "I cannot log into my account."),
    ("What's the price of a boiler service?", "How much does a boiler service cost?"),
    ("Can an 18-year-old vote?", "Can someone vote at 18?"),
    ("How long is the flight from London to Oslo?", "From London to Oslo, how long is the flight?"),
    ("Turn the kitchen lights on", "Please switch on the kitchen lights"),
    ("WHERE IS THE LOST PROPERTY OFFICE", "Where's the lost property office?"),
    ("Explain `a += 1`", "Could you please explain `a += 1`?"),
    ("Wie bezahle ich die Rechnung?", "wie bezahle ich die rechnung"),
]


def _refusal(first: str, second: str) -> Refusal | None:
    ours, theirs = analyse(first), analyse(second)
    return refusal(ours, theirs, align(ours, theirs))


def test_every_guard_has_its_traps():
    """No guard goes untested."""
    assert {name for name, _ in GUARDS} == TRAPS.keys()


@pytest.mark.parametrize(("guard", "pair"), [(guard, pair) for guard, pairs in TRAPS.items() for pair in pairs])
def test_a_trap_is_refused_by_its_guard_either_way_round(guard: str, pair: tuple[str, str]):
    """The refusal names the guard and a reason, and does not depend on which message was stored."""
    first, second = pair
    for refused in (_refusal(first, second), _refusal(second, first)):
        assert refused is not None
        assert refused.guard == guard
        assert refused.reason


@pytest.mark.parametrize("pair", REPEATS)
def test_a_repeat_passes_every_guard(pair: tuple[str, str]):
    """Manners, slips, units, order and contractions are no reason to refuse."""
    assert _refusal(*pair) is None


def test_the_reason_says_what_stands_against_what():
    """For `explain`: the words of both messages."""
    assert _refusal("Track order 88213", "Track order 88231") == Refusal("quantities", "88213 against 88231")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_are_compared_alike_both_ways(first: str, second: str):
    """Whatever the texts hold, nothing fails, a text passes beside itself, and order does not matter."""
    assert _refusal(first, first) is None
    assert (_refusal(first, second) is None) == (_refusal(second, first) is None)


UNKNOWN = [f"q{first}z{second}v" for first in "abcdefghijkl" for second in "abcdefghijkl"]
PREFIXED = [prefix + word for prefix in ("un", "dis", "over", "re") for word in UNKNOWN[:29]]
NAMES = [word.title() for word in UNKNOWN[:117]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (" ".join(UNKNOWN[:58]), " ".join(UNKNOWN[58:116])),
        (" ".join(PREFIXED), " ".join(reversed([word[2:] for word in PREFIXED]))),
        (" ".join(["is it", *NAMES]), " ".join(["is it", *reversed(NAMES)])),
        (" ".join(["at", *NAMES[:9], "and", *NAMES[9:]]), " ".join(["for", *NAMES[:9], "and", *reversed(NAMES[9:])])),
        ("turn it " * 58, "switch it " * 58),
    ],
    ids=["unknown", "prefixed", "names", "moved", "equal"],
)
def test_the_work_of_a_decision_grows_with_the_words(first: str, second: str):
    """Two messages of some 120 words, chosen for it, are compared with at most 30 calls a word."""
    ours, theirs = analyse(first), analyse(second)
    calls = _num_calls(lambda: refusal(ours, theirs, align(ours, theirs)))
    assert calls < 30 * max(ours.num_words, theirs.num_words)


def test_the_work_of_taking_a_message_apart_grows_with_its_words():
    """Two hundred words that nobody knows: at most 90 calls each."""
    assert _num_calls(lambda: analyse(" ".join(UNKNOWN + UNKNOWN[:60]))) < 90 * 204


def test_marks_in_heaps_on_one_letter_are_left_as_they_are():
    """To put 100,000 of them in order would take ten seconds; of ordinary text the forms are Unicode's."""
    heap = "a" + "\u0301\u0323\uff9e" * 33_333
    began = time.perf_counter()
    assert normalised("NFKC", heap) == normalised("NFC", heap) == heap
    assert time.perf_counter() - began < 1
    assert normalised("NFC", "e\u0323\u0301") == "\u1eb9\u0301"
    assert normalised("NFKC", "① ﬁ") == "1 fi"


def _num_calls(act: Callable[[], object]) -> int:
    """Of functions, in Python and in C."""
    profile = cProfile.Profile()
    profile.runcall(act)
    return sum(each.callcount for each in profile.getstats())
