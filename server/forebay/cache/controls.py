"""What a request's headers say about the cache: `x-cache-control` and the request directives of `Cache-Control`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from forebay.cache_settings import CacheTier
from forebay.errors import InvalidRequest

OWN_HEADER = "x-cache-control"
STANDARD_HEADER = "cache-control"
MAX_AGE_S = 2**31
"""RFC 9111, 1.2.2: what is more counts as this."""

_TIERS = ("off", "exact", "semantic")


@dataclass(frozen=True, slots=True)
class Controls:
    """What a request asks for; it may narrow what its key allows, never widen it.

    `tier`: the widest it wants. `no_cache`: a new answer, which is stored. `no_store`: nothing of it is stored.
    `max_age_s`: no answer older than that. `only_if_cached`: a stored answer or none.
    """

    tier: CacheTier = "semantic"
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None


NO_CONTROLS = Controls()


def read_controls(own: str | None, standard: str | None) -> Controls:
    """Of the values of `x-cache-control` and `Cache-Control` (RFC 9111, 5.2.1), several lines joined by commas.

    `Cache-Control` is also browsers' and proxies': what it says to others is passed over, as the RFC has it. In
    `x-cache-control` every directive must be known. Raises `InvalidRequest` that names the header.
    """
    if own is None and standard is None:
        return NO_CONTROLS
    controls = NO_CONTROLS
    for header, value in ((OWN_HEADER, own), (STANDARD_HEADER, standard)):
        for name, argument in _directives(value or ""):
            if header == OWN_HEADER and name in _TIERS and argument is None:
                tier = min(controls.tier, cast(CacheTier, name), key=_TIERS.index)
                controls = replace(controls, tier=tier)
            elif name == "max-age":
                age_s = _seconds(header, argument)
                if controls.max_age_s is not None:
                    age_s = min(age_s, controls.max_age_s)
                controls = replace(controls, max_age_s=age_s, no_cache=controls.no_cache or age_s == 0)
            elif name == "no-cache" and argument is None:
                controls = replace(controls, no_cache=True)
            elif name == "no-store" and argument is None:
                controls = replace(controls, no_store=True)
            elif name == "only-if-cached" and argument is None:
                controls = replace(controls, only_if_cached=True)
            elif header == OWN_HEADER or name in ("no-cache", "no-store", "only-if-cached"):
                raise InvalidRequest(
                    f"`{header}` may be off, exact, semantic, no-cache, no-store, only-if-cached or max-age=SECONDS.",
                    param=header,
                )
    if controls.only_if_cached and (controls.no_cache or controls.tier == "off"):
        header = OWN_HEADER if own is not None else STANDARD_HEADER
        raise InvalidRequest(f"`{header}` asks for a stored answer only and for none at once.", param=header)
    return controls


def _directives(value: str) -> Iterator[tuple[str, str | None]]:
    for item in value.split(","):
        name, equals, argument = item.partition("=")
        if name.strip() or equals:
            yield name.strip().lower(), argument.strip().strip('"') if equals else None


def _seconds(header: str, argument: str | None) -> float:
    if argument is None or not (argument.isascii() and argument.isdigit()):
        raise InvalidRequest(f"`{header}`: `max-age` must be a number of seconds, max-age=60.", param=header)
    return float(min(int(argument[:12]), MAX_AGE_S))
