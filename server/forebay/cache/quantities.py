"""Numbers, with the units that follow them, in one form: `two weeks` and `14 days` are the same amount."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
WORDS = (
    {word: value for value, word in enumerate(_ONES.split())}
    | {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
    # `first` and `second` are more often words than numbers.
    | {word: value for value, word in enumerate(_ORDINALS.split(), 1) if value > 2}
    | {"dozen": 12}
)
_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "m": 10**6, "billion": 10**9, "bn": 10**9}
# Amounts of one dimension, in its smallest usual unit.
_UNITS = {
    name: (dimension, Decimal(factor))
    for dimension, factor, names in (
        ("s", "1", "second seconds sec secs s"), ("s", "60", "minute minutes min mins"),
        ("s", "3600", "hour hours hr hrs h"),
        ("day", "1", "day days"), ("day", "7", "week weeks wk wks"), ("day", "14", "fortnight fortnights"),
        ("month", "1", "month months mth mths"), ("month", "12", "year years yr yrs"),
        ("month", "120", "decade decades"),
        ("g", "0.001", "mg milligram milligrams"), ("g", "1", "g gram grams grammes"),
        ("g", "1000", "kg kgs kilo kilos kilogram kilograms"),
        ("lb", "1", "lb lbs pound pounds"), ("oz", "1", "oz ounce ounces"), ("stone", "1", "stone stones"),
        ("m", "0.001", "mm millimetre millimetres millimeter millimeters"),
        ("m", "0.01", "cm centimetre centimetres centimeter centimeters"), ("m", "1", "metre metres meter meters"),
        ("m", "1000", "km kms kilometre kilometres kilometer kilometers"),
        ("mile", "1", "mile miles mi"), ("foot", "1", "foot feet ft"), ("inch", "1", "inch inches"),
        ("ml", "1", "ml millilitre millilitres milliliter milliliters"), ("ml", "10", "cl"),
        ("ml", "1000", "l litre litres liter liters"), ("cup", "1", "cup cups"),
        ("byte", "1", "b byte bytes"), ("byte", "1000", "kb kilobyte kilobytes"),
        ("byte", "1000000", "mb megabyte megabytes"),
        ("byte", "1000000000", "gb gig gigs gigabyte gigabytes"), ("byte", "1000000000000", "tb terabyte terabytes"),
        ("percent", "1", "% percent pc"), ("gbp", "1", "£ gbp quid"), ("usd", "1", "$ usd dollar dollars buck bucks"),
        ("eur", "1", "€ eur euro euros"), ("celsius", "1", "c °c celsius centigrade"),
        ("fahrenheit", "1", "f °f fahrenheit"),
        ("degree", "1", "° degree degrees"), ("watt", "1", "w watt watts"), ("watt", "1000", "kw kilowatt kilowatts"),
    )
    for name in names.split()
}  # fmt: skip
_TIMES = frozenset({"noon", "midday", "midnight"})
_CURRENCY = re.compile(r"([£$€])\s?(\d[\d,.]*)")
_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(st|nd|rd|th)?([a-z%°]*)")
_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})(am|pm)?|(\d{1,2})(am|pm)")
_VERSION = re.compile(r"v?\d+(?:\.\d+)+[a-z0-9]*")


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """`amount` in the smallest usual unit of `dimension` ("" without one); `number` as it was written, in digits."""

    number: str
    amount: str
    dimension: str = ""

    def __str__(self) -> str:
        return f"{self.amount} {self.dimension}".rstrip()


def unmatched(ours: Sequence[Quantity], theirs: Sequence[Quantity]) -> tuple[list[Quantity], list[Quantity]]:
    """What is left of both, in order, where each takes one of the other side: of its amount in its unit; else of its
    number, if one of the two has no unit."""
    left, others = _paired(ours, theirs, _in_its_unit, _in_its_unit)
    return _paired(
        left, others, lambda one: (one.number, not one.dimension), lambda one: (one.number, bool(one.dimension))
    )


def _in_its_unit(one: Quantity) -> Hashable:
    return one.amount, one.dimension


def _paired(
    ours: Sequence[Quantity],
    theirs: Sequence[Quantity],
    key: Callable[[Quantity], Hashable],
    others_key: Callable[[Quantity], Hashable],
) -> tuple[list[Quantity], list[Quantity]]:
    """What is left where each takes the first of the other side with its key."""
    by_key: defaultdict[Hashable, deque[Quantity]] = defaultdict(deque)
    for other in theirs:
        by_key[others_key(other)].append(other)
    left = []
    for one in ours:
        if same := by_key.get(key(one)):
            same.popleft()
        else:
            left.append(one)
    return left, sorted(chain.from_iterable(by_key.values()))


def spread_currency(text: str) -> str:
    """`£50` as `50 gbp`, so that sign and word come out alike."""
    return _CURRENCY.sub(lambda match: f"{match[2]} {_UNITS[match[1]][0]} ", text)


def read_quantity(words: Sequence[str], at: int) -> tuple[Quantity, int] | None:
    """The quantity that begins at `words[at]`, and how many words it takes; None where none begins.

    Times of day are `hh:mm`; versions and what else has digits stay as they are.
    """
    word = words[at]
    if word.isalpha() and word not in WORDS and word not in _TIMES:
        return None
    clock = _CLOCK.fullmatch(word)
    if clock is not None and (":" in word or word[-1] == "m" or words[at + 1 : at + 2] in (["am"], ["pm"])):
        return _clock(clock, words, at)
    if word in _TIMES:
        return Quantity(word, "00:00" if word == "midnight" else "12:00", "time"), 1
    value, suffix, taken = _value(words, at)
    if value is None:
        following = words[at + 1] if at + 1 < len(words) else ""
        if re.fullmatch(r"\d+\.\d+", word) and following in _UNITS:
            dimension, factor = _UNITS[following]
            return Quantity(word, _plain(Decimal(word) * factor), dimension), 2
        return (Quantity(word, word), 1) if any(character.isdigit() for character in word) else None
    following = words[at + taken] if at + taken < len(words) else ""
    if word == "one" and taken == 1 and following not in _UNITS:
        return None  # as often a pronoun or an article as a number
    part_of_day = tuple(words[at + taken : at + taken + 3])
    if part_of_day[:2] == ("in", "the") and part_of_day[2:] in {("morning",), ("afternoon",), ("evening",)}:
        hour = int(value) % 12 + (0 if part_of_day[2] == "morning" else 12)
        return Quantity(_plain(value), f"{hour:02}:00", "time"), taken + 3
    if not suffix and following in {"am", "pm"}:
        hour = int(value) % 12 + (12 if following == "pm" else 0)
        return Quantity(_plain(value), f"{hour:02}:00", "time"), taken + 1
    if not suffix and following in _SCALES and following != "m":
        value, taken = value * _SCALES[following], taken + 1
        following = words[at + taken] if at + taken < len(words) else ""
    if not suffix and following in {"year", "years", "month", "months", "week", "weeks"}:
        after = words[at + taken + 1 : at + taken + 2]
        if tuple(after) == ("old",):
            dimension, factor = _UNITS[following]
            return Quantity(_plain(value), _plain(value * factor), f"{dimension} old"), taken + 2
    unit = _UNITS.get(suffix or following)
    if unit is None:
        return Quantity(_plain(value), _plain(value)), taken
    return Quantity(_plain(value), _plain(value * unit[1]), unit[0]), taken if suffix else taken + 1


def _clock(clock: re.Match[str], words: Sequence[str], at: int) -> tuple[Quantity, int]:
    hour, minute = int(clock[1] or clock[4]), int(clock[2] or 0)
    half, taken = clock[3] or clock[5], 1
    if half is None and words[at + 1 : at + 2] and words[at + 1] in {"am", "pm"}:
        half, taken = words[at + 1], 2
    if half is not None:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return Quantity(clock[1] or clock[4], f"{hour:02}:{minute:02}", "time"), taken


def _value(words: Sequence[str], at: int) -> tuple[Decimal | None, str, int]:
    """(value, a unit glued to it, words taken)."""
    word = words[at]
    if (number := _NUMBER.fullmatch(word)) is not None and not _VERSION.fullmatch(word.rstrip("%")):
        suffix = number[3]
        if suffix in _SCALES and suffix not in _UNITS:
            return _decimal(number[1]) * _SCALES[suffix], "", 1
        if suffix in {"", *_UNITS}:
            return _decimal(number[1]), suffix, 1
        return None, "", 1
    return _spelled(words, at)


def _spelled(words: Sequence[str], at: int) -> tuple[Decimal | None, str, int]:
    total, taken = 0, 0
    for word in words[at:]:
        if word in WORDS:
            # `twenty five` adds, `two five` are two numbers.
            if taken and not (total % 100 >= 20 and total % 10 == 0 and 0 < WORDS[word] < 10) and total % 100:
                break
            total += WORDS[word]
        elif word in {"hundred", "thousand", "million"} and taken:
            total *= _SCALES[word]
        else:
            break
        taken += 1
    return (Decimal(total), "", taken) if taken else (None, "", 0)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return Decimal(0)


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")
