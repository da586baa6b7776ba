"""Whether the answer to a text depends on when it is asked or on who asks, as far as its words tell.

Such texts are left to the exact tier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_UNIT = r"(?:minute|hour|morning|afternoon|evening|night|day|week|weekend|fortnight|month|quarter|season|term|year)s?"
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_TIME = (
    r"today|tonight|tomorrow|yesterday|nowadays|now|currently|presently|recent(?:ly)?|latest|newest|upcoming|lately",
    rf"(?:this|next|last|past|coming|previous) (?:\w+ ){{0,2}}(?:{_UNIT}|{_WEEKDAY})|\w+ {_UNIT} ago",
    r"current(?!ly| accounts?\b| through| flow| in (?:a|the)\b)",
    r"what(?:'s|’s| is)? (?:the )?(?:time|date|day|year)(?: is it| now)?[ ?.!]*$",
    r"at the moment|at present|these days|so far|up[- ]to[- ]date|as of|breaking|news|weather|forecast",
    r"how old (?:is|are)",
    r"(?:stock|share|bitcoin|gold|oil) price|exchange rate|score of|in stock|still (?:available|open|alive|running)",
    r"heute|gestern|jetzt|derzeit|momentan|aktuell\w*|wetter|wie spät|(?:diese|nächste|letzte)[rsnm]? \w+",
    r"aujourd[’']hui|demain|maintenant|actuellement|météo|quelle heure|en ce moment",
    r"hoy|ayer|ahora|actualmente|qué hora|oggi|domani|ieri|adesso|che ore|hoje|amanhã|ontem|agora|que horas",
)
_STATE = (
    r"name|age|birthday|address|number|balance|bill|invoices?|debt|salary|pay|payslip|orders?|parcel|package"
    r"|deliver(?:y|ies)|shipment|refund|bookings?|reservations?|tickets?|flight|appointments?|schedule"
    r"|calendar|meetings?|inbox|results?"
    r"|grades?|score|usage|plan|quota|location|status|history|friends?|boss|favou?rite"
)
_PERSON = (
    r"who am i|where am i|how am i|am i (?:still|on|in|at|being|logged|subscribed|enrolled)|did i|have i|had i",
    r"do (?:i|we) (?:have|owe|own|still)|how (?:much|many|old|long|far)(?: \w+){0,3} (?:have|did|do|am) (?:i|we)",
    rf"(?:what|who|which|where|when|how much|how many|how old)(?:'s|’s| is| are| was| were| will| does| did) (?:my|our)"
    rf" (?:\w+ ){{0,2}}(?:{_STATE})",
    rf"where (?:my|our) (?:\w+ ){{0,2}}(?:{_STATE}) (?:is|are)",
    rf"(?:show|list|tell|give|read)(?: me| us)? (?:all )?(?:my|our) (?:\w+ ){{0,2}}(?:{_STATE})",
    r"near me|nearby|around here|do you remember|remember (?:when|that|what) (?:i|we)|as i said",
    r"i told you|we discussed|i mentioned|you said|remind me|my (?:last|next)",
    r"(?:^|[.!?,]\s*)(?:is|are|was|were|has|have|did|will) (?:my|our)",
    r"(?:track|cancel|where(?: is|'s)) (?:\w+ )?(?:order|parcel|booking|ticket|shipment) \S{0,24}\d",
    r"wer bin ich|habe ich|bin ich|in meiner nähe|qui suis-je|près de moi|quién soy|cerca de mí|chi sono",
)
_PATTERNS = {"time": _TIME, "person": _PERSON}
_ANY = {kind: re.compile(rf"\b(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE) for kind, parts in _PATTERNS.items()}
_CJK = re.compile("今天|明天|昨天|现在|目前|最新|今日|天气|今夜|現在|오늘|내일|어제|지금")


@dataclass(frozen=True, slots=True)
class Dependence:
    """On the moment or on the person who asks, by these words of the text."""

    kind: Literal["time", "person"]
    words: str


def depends_on(text: str) -> Dependence | None:
    """What the answer depends on beside the text. Words decide, in doubt against the cache.

    `my` alone says little ("How do I reset my password?" is everybody's question); asking for the state of something of
    one's own ("Where is my order?") does. Languages other than English are known by their commonest words only. Of one
    message alone: what the earlier turns say is in the scope key.
    """
    if (found := _ANY["time"].search(text) or _CJK.search(text)) is not None:
        return Dependence("time", found.group().strip())
    found = _ANY["person"].search(text)
    return None if found is None else Dependence("person", found.group().strip())
