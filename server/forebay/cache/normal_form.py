"""Unicode's normal forms, of texts that anybody may have written."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

_STACKED = re.compile(r"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f]){32}")
"""As many marks on one letter, or signs in a row: no combining character is a letter, a digit or a space, but for the
two of half-width Japanese."""


def normalised(form: Literal["NFC", "NFKC"], text: str) -> str:
    """The text in this form; as it is where so many marks may stand on one letter that to put them in order would take
    a while: that is quadratic in their number, 0.8 s for 32,000.

    "Stream-Safe Text" has at most 30 (UAX 15, section 13).
    """
    if text.isascii() or _STACKED.search(text) is not None:
        return text
    return unicodedata.normalize(form, text)
