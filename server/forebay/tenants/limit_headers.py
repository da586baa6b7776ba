"""`x-ratelimit-*`: what is left of a minute's limits, in OpenAI's headers."""

from __future__ import annotations

from collections.abc import Iterable

from forebay.tenants.buckets import UNIT, Bucket
from forebay.tenants.limits import Limits


def limit_headers(limits: Iterable[Limits]) -> dict[str, str]:
    """Of the tightest of each kind; nothing where nothing is limited."""
    limits = tuple(limits)
    headers: dict[str, str] = {}
    _add(headers, "requests", [one.requests for one in limits if one.requests is not None])
    _add(headers, "tokens", [one.tokens for one in limits if one.tokens is not None])
    return headers


def _add(headers: dict[str, str], name: str, buckets: list[Bucket]) -> None:
    if buckets:
        tightest = min(buckets, key=_left)
        left = _left(tightest)
        add_headers(headers, name, tightest.rate, left // UNIT, (tightest.rate * UNIT - left) // tightest.rate)


def _left(bucket: Bucket) -> int:
    return max(bucket.available, 0)


def add_headers(headers: dict[str, str], name: str, limit: int, remaining: int, full_in_ms: int) -> None:
    headers[f"x-ratelimit-limit-{name}"] = str(limit)
    headers[f"x-ratelimit-remaining-{name}"] = str(remaining)
    headers[f"x-ratelimit-reset-{name}"] = duration(full_in_ms)


def duration(ms: int) -> str:
    """As OpenAI writes it: `17ms`, `1.2s`, `6m0s`, `1h2m3s`."""
    if ms < 1000:
        return f"{ms}ms"
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{ms:03}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
