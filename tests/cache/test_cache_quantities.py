"""Numbers and their units in one form."""

from __future__ import annotations

import pytest

from forebay.cache.analysis import analyse


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("within two weeks", ["14 day"]),
        ("a 6-year-old child", ["72 month old"]),
        ("1.5 kg of flour", ["1500 g"]),
        ("10GB or 10 gigabytes", ["10000000000 byte", "10000000000 byte"]),
        ("£250,000 and $3", ["3 usd", "250000 gbp"]),
        ("at 7pm, 7 pm and 19:00", ["19:00 time", "19:00 time", "19:00 time"]),
        ("seven in the morning", ["07:00 time"]),
        ("twenty five percent of two hundred", ["200", "25 percent"]),
        ("5k users, 2 million rows", ["2000000", "5000"]),
        ("the 3rd and the 21st", ["21", "3"]),
        ("Python 3.10 on v2.0.1", ["2.0.1", "3.10"]),
        ("order AB-1234X", ["1234x"]),
        ("which one of them", []),
    ],
)
def test_a_quantity_has_one_form(text: str, quantities: list[str]):
    """Words, digits, signs and units that mean one amount come out alike; versions and codes stay as they are."""
    assert sorted(str(quantity) for quantity in analyse(text).quantities) == sorted(quantities)
