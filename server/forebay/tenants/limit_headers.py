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

RawHeaders = list[tuple[bytes, bytes]]

Left = tuple[int, int]
"""A rate per minute, and what is left of it in `UNIT`s."""

BucketsLeft = tuple[Left | None, Left | None]
"""Of requests and of tokens; None: not limited."""

_NAMES = [
    tuple(f"x-ratelimit-{what}-{name}".encode() for what in ("limit", "remaining", "reset"))
    for name in ("requests", "tokens")
]


def limit_headers(parties: Sequence[BucketsLeft]) -> RawHeaders:
    """Of the tightest of each kind; nothing where nothing is limited."""
    headers: RawHeaders = []
    for kind, (limit, remaining, reset) in enumerate(_NAMES):
        tightest = None
        for lefts in parties:
            one = lefts[kind]
            if one is not None and (tightest is None or one[1] < tightest[1]):
                tightest = one
        if tightest is not None:
            rate, left = tightest
            headers += (
                (limit, b"%d" % rate),
                (remaining, b"%d" % (left // UNIT)),
                (reset, duration((rate * UNIT - left) // rate)),
            )
    return headers


def as_text(headers: RawHeaders) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def duration(ms: int) -> bytes:
    """As OpenAI writes it: `17ms`, `1.2s`, `6m0s`, `1h2m3s`."""
    return b"%dms" % ms if ms < 1000 else _long(ms).encode()


def _long(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = (f"{seconds}.{ms:03}".rstrip("0").rstrip(".") if ms else str(seconds)) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
