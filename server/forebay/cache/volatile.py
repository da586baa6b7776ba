"""Messages whose answer depends on when they are asked, or by whom: the semantic tier leaves them alone."""

from __future__ import annotations

import re

_WHEN = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|currently|nowadays|latest|recent|recently|ago|lately|so far|"
    r"at the moment|news|weather|forecast|status|balance|availability|"
    r"(?:this|next|last|coming|past) (?:second|minute|hour|morning|afternoon|evening|night|day|week|weekend|month|"
    r"quarter|year|mon|tues|wednes|thurs|fri|satur|sun)\w*)\b",
    re.IGNORECASE,
)
# A question about the state of what is mine; how to do something with it is the same for everyone.
_WHOSE = re.compile(
    r"\b(?:(?:where|when|what|who|how much|how many)(?:'s|\s+is|\s+are|\s+was|\s+were|\s+will|\s+did)|"
    r"(?:^|[.!?,]\s*)(?:is|are|was|were|has|have|did|will)|show(?: me)?|track|list|check)\s+(?:all\s+)?(?:of\s+)?"
    r"(?:my|our)\b|\b(?:who am i|my name|do i have left|do i owe|have i got left|remind me|my last|my next)\b|"
    r"\b(?:track|cancel|where is|where's)\s+(?:\w+\s+)?(?:order|parcel|booking|ticket|shipment)\s+\S*\d",
    re.IGNORECASE,
)


def volatile(text: str) -> str | None:
    """The words that bind the answer to a moment or a person, None where there are none.

    Of one message alone: what the earlier turns say is in the scope key.
    """
    found = _WHEN.search(text) or _WHOSE.search(text)
    return found.group().strip() if found is not None else None
