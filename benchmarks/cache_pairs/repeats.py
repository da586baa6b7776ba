"""The same question said again: manners, fillers, slips of the finger, other cases, other order, other words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from forebay.cache.spelling import is_known

LEADS = (
    "Hi, {}", "Hello, {}", "Hey {}", "Good morning, {}", "Hi there! {}", "Excuse me, {}", "Quick question: {}",
    "Sorry to bother you, but {}", "um {}", "uh so {}", "so {}", "ok so {}", "yeah {}", "well {}",
    "Can you tell me {}", "Could you please tell me {}", "Do you know {}", "I was wondering, {}",
    "I'd like to know: {}", "Just wondering, {}", "Evening! {}", "Dear team, {}", "Hope you're well. {}",
    "Sorry, dumb question, but {}", "Got a sec? {}", "Random one: {}", "hi guys, {}", "Another thing: {}",
    "Me again. {}", "I need some help: {}", "Not sure if this is the right place, but {}", "please, {}",
)  # fmt: skip
TAILS = (
    "{} please", "{}, please", "{} Thanks!", "{} Thank you.", "{} Cheers", "{}, thanks in advance", "{} Any ideas?",
    "{} thx", "{} Many thanks", "{} by the way",
)  # fmt: skip
INSIDE = (
    "um", "uh", "please", "er", "actually", "basically",
)  # fmt: skip
MILD = (
    "usually", "normally", "actually", "currently", "generally", "typically", "really",
)  # fmt: skip
CONTRACTIONS = {
    "What is ": "What's ",
    "Where is ": "Where's ",
    "Who is ": "Who's ",
    "When is ": "When's ",
    "I am ": "I'm ",
    "cannot ": "can't ",
    "do not ": "don't ",
    "does not ": "doesn't ",
    "is not ": "isn't ",
    "I have ": "I've ",
    "How is ": "How's ",
}
# `old > new / new`: the question stays the same.
_SWAPS = """
How do I > How can I / How could I / how to / What's the best way to / Could you tell me how to / How would I
How can I > How do I / What's the way to / How might I / Please explain how to / Is there a way to
Can I > Could I / Am I able to / Is it possible to / May I / Am I allowed to / Is it OK to
How often should I > How frequently should I / How regularly should I
How do you > How do I / How can you / how to
What's the > What is the / Tell me the
What is the > What's the / Could you tell me the
What are the > Could you tell me the / List the
Do I need > Do I require
Do I have to > Do I need to / Must I / Am I required to
Do you offer > Do you have / Do you provide / Is there
Is there a > Do you have a / Do you offer a
How long does > How much time does / For how long does
What's the price of > How much is / What does it cost to buy / What's the cost of
When does > At what time does / What time does
Where can I > Where do I / Where could I
Who is > Who's
Which > What
buy > purchase
get > obtain / receive
change > update / modify / alter / amend
cancel > terminate / end
book > reserve
delete > remove / erase
remove > delete
fix > repair / mend
begin > start
start > begin
send > submit
big > large
car > vehicle
phone > mobile / mobile phone
help > assist
cost > price
show > display
allowed > permitted
create > make / generate
make > create
parcel > package
refund > reimbursement
find > locate
choose > select / pick
check > verify
increase > raise / boost
lower > reduce / decrease
turn off > switch off / disable / deactivate
turn on > switch on / enable / activate
turn on > activate
unblock > unclog
holiday > vacation
vacation > holiday
flat > apartment
doctor > GP / physician
medicine > medication
luggage > baggage
shop > store
staff > employees
broken > damaged / faulty
quickly > fast
file > document
picture > photo
film > movie
require > need
return > send back / give back
contact > get in touch with / reach
include > contain / come with
children > kids
kids > children
autumn > fall
invoice > bill
receipt > proof of purchase
problem > issue
bug > error
company > firm / business
salary > pay / wage
tyre > tire
colour > color
centre > center
licence > license
organise > organize
programme > program
litre > liter
grey > gray
cheque > check
favourite > favorite
travelling > traveling
"""
SWAPS = {old: news.split(" / ") for old, news in (line.split(" > ") for line in _SWAPS.strip().splitlines())}


def repeats(rng: random.Random, text: str) -> Iterator[tuple[str, str]]:
    """(kind, the text changed) for some kinds; now and then with a slip on top."""
    makers: list[tuple[str, Callable[[random.Random, str], str | None]]] = [
        ("typo", _mistype), ("manners", _lead), ("manners", _tail), ("filler", _fill), ("case", _recase),
        ("contraction", _contract),
        ("fronting", _front), ("wording", _reword), ("mild", _soften),
    ]  # fmt: skip
    always = [maker for maker in makers if maker[0] in {"wording", "fronting", "contraction"}]
    for kind, maker in [*always, always[-1], always[-1], *rng.sample(makers, 2)]:
        changed = maker(rng, text)
        if changed is not None and changed != text:
            if rng.random() < 0.15:
                changed = _mistype(rng, changed) or changed
            yield kind, changed


def _lower(text: str) -> str:
    return text if text[:2] in {"I ", "I'"} or text.split(" ")[0].isupper() else text[0].lower() + text[1:]


def _lead(rng: random.Random, text: str) -> str:
    return rng.choice(LEADS).format(_lower(text))


def _tail(rng: random.Random, text: str) -> str:
    tail = rng.choice(TAILS)
    return tail.format(text.rstrip("?") if tail[2] in " ," and tail[3:4].islower() else text)


def _fill(rng: random.Random, text: str) -> str | None:
    words = text.lower().rstrip("?").split()
    if len(words) < 4:
        return None
    words.insert(rng.randrange(1, len(words)), rng.choice(INSIDE))
    return " ".join(words)


def _recase(rng: random.Random, text: str) -> str:
    return rng.choice(
        (
            text.upper(),
            text.lower(),
            text.rstrip("?"),
            text + "?",
            text.replace("?", "!?"),
            f"  {text} ",
            text.replace("?", "..."),
        )
    )


def _contract(_: random.Random, text: str) -> str | None:
    for long, short in CONTRACTIONS.items():
        if long in text:
            return text.replace(long, short)
        if short in text:
            return text.replace(short, long)
        if "'" in text:
            return text.replace("'", "")
    return None


def _front(_: random.Random, text: str) -> str | None:
    """`How do I … in the app?` as `In the app, how do I …?`."""
    match = re.fullmatch(
        r"(.{12,}?) ((?:in|on|at|for|with|after|before|without|during) (?:the|my|an?|two|Python|Java) ?\w*(?: \w+)?)\?",
        text,
    )
    return None if match is None else f"{match[2][0].upper()}{match[2][1:]}, {_lower(match[1])}?"


def _reword(rng: random.Random, text: str) -> str | None:
    """One phrase, or now and then two, in other words."""
    for _ in range(rng.choice((1, 1, 2))):
        usable = [(old, new) for old, news in SWAPS.items() if re.search(rf"\b{old}\b", text) for new in news]
        if not usable:
            return None
        old, new = rng.choice(usable)
        text = re.sub(rf"\b{old}\b", new, text, count=1)
    return text[0].upper() + text[1:]


def _soften(rng: random.Random, text: str) -> str | None:
    match = re.match(r"((?:How|When|Where|What) (?:do|does|should|can|is|are) (?:I|you|it|the|my)?) ", text)
    return None if match is None else f"{match[1]} {rng.choice(MILD)} {text[match.end() :]}"


def _mistype(rng: random.Random, text: str) -> str | None:
    """One or two slips in longer words: a letter dropped, doubled, swapped with its neighbour, or changed."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if word.isalpha() and word.islower() and len(word) >= 5]
    if not places:
        return None
    for at in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        word = words[at]
        place = rng.randrange(1, len(word) - 1)
        slipped = rng.choice((
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            word[:place] + rng.choice("aeiourstln") + word[place + 1 :],
        ))  # fmt: skip
        if not is_known(slipped):  # a slip that makes another word is another question
            words[at] = slipped
    return " ".join(words)
