"""`x-ratelimit-*`: what is left of a minute's limits, in OpenAI's headers."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.tenants.buckets import UNIT

LIMIT_HEADERS = (
    *(f"x-ratelimit-{what}-{name}" for name in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    "retry-after-ms",
    "x-should-retry",
)
"""What browsers are to be shown, too."""

Left = tuple[int, int]
"""A rate per minute, and what is left of it in `UNIT`s."""

BucketsLeft = tuple[Left | None, Left | None]
"""Of requests and of tokens; None: not limited."""


def limit_headers(parties: Sequence[BucketsLeft]) -> dict[str, str]:
    """Of the tightest of each kind; nothing where nothing is limited."""
    headers: dict[str, str] = {}
    for name, lefts in (("requests", [one[0] for one in parties]), ("tokens", [one[1] for one in parties])):
        limited = [left for left in lefts if left is not None]
        if limited:
            rate, left = min(limited, key=_amount)
            headers[f"x-ratelimit-limit-{name}"] = str(rate)
            headers[f"x-ratelimit-remaining-{name}"] = str(left // UNIT)
            headers[f"x-ratelimit-reset-{name}"] = duration((rate * UNIT - left) // rate)
    return headers


def _amount(left: Left) -> int:
    return left[1]


def duration(ms: int) -> str:
    """As OpenAI writes it: `17ms`, `1.2s`, `6m0s`, `1h2m3s`."""
    if ms < 1000:
        return f"{ms}ms"
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = (f"{seconds}.{ms:03}".rstrip("0").rstrip(".") if ms else str(seconds)) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
