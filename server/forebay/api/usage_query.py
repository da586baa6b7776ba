"""The query of the usage API: each parameter honoured or refused by name."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import InvalidRequest, PermissionDenied, UnsupportedParameter
from forebay.ledger.usage import METADATA, UsageQuery
from forebay.tenants.directory import ANONYMOUS
from forebay.types import Caller

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86_400}
MAX_TIME = 253_402_300_800
"""The year 10000."""

MAX_VALUES = 100
MAX_CHARS = 256
MAX_GROUPS = 8
"""A key of the metadata is looked up in every row's JSON."""

CURSOR = re.compile(r"page_(\d{1,12})_(\d{1,12})_([0-9a-f]{16})")
SINGLE = ("start_time", "end_time", "bucket_width", "limit", "page", "batch")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one of the routes takes: groups by our names, filters, buckets by default and at most by width."""

    groups: Mapping[str, str]
    filters: Mapping[str, str]
    limits: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Asked:
    """`groups`: the names as the client gave them, for the columns of `query.group_by`."""

    query: UsageQuery
    groups: tuple[str, ...]
    range_end: int
    digest: str

    @property
    def next_page(self) -> str | None:
        """What continues the same query where this page ends."""
        end = self.query.buckets[-1][1]
        return None if end >= self.range_end else f"page_{end}_{self.range_end}_{self.digest}"


def read_query(pairs: Sequence[tuple[str, str]], endpoint: Endpoint, caller: Caller) -> Asked:
    """What may be seen is the caller's tenant for an admin, its key for a member, everything for an owner.

    Lists are repeated parameters, `group_by=model&group_by=user_id` or `group_by[]=...`. Raises `InvalidRequest`,
    `UnsupportedParameter`, `PermissionDenied`.
    """
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name.removesuffix("[]"), []).append(value)
    for name, values in given.items():
        _check_parameter(name, values, endpoint)
    if given.get("batch", ["false"]) != ["false"]:
        raise UnsupportedParameter("`batch` can only be false: there are no batch jobs.", param="batch")
    width_name = _one(given, "bucket_width") or "1d"
    if width_name not in endpoint.limits:
        raise InvalidRequest(f"`bucket_width` must be one of {', '.join(endpoint.limits)}.", param="bucket_width")
    default_limit, max_limit = endpoint.limits[width_name]
    limit = _number(given, "limit", 1, max_limit) or default_limit
    width = WIDTHS[width_name]
    groups = tuple(dict.fromkeys(given.get("group_by", ())))
    filters = _visible(
        caller, {endpoint.filters[name]: tuple(given[name]) for name in endpoint.filters if name in given}
    )
    digest = hashlib.sha256(repr((width, groups, sorted(filters.items()))).encode()).hexdigest()[:16]
    if (page := _one(given, "page")) is None:
        now = int(time.time())
        start = _number(given, "start_time", 0, MAX_TIME)
        end = _number(given, "end_time", 0, MAX_TIME)
        start = (now // width - default_limit + 1) * width if start is None else start
        # Without an end, up to now; the second that runs has its rows too.
        end = max(now, start) + 1 if end is None else end
        if end <= start:
            raise InvalidRequest("`end_time` must be later than `start_time`.", param="end_time")
    else:
        start, end = _continued(page, digest)
    columns = tuple(endpoint.groups.get(name, name) for name in groups)
    query = UsageQuery(start, end, width, limit, columns, filters)
    return Asked(query, groups, end, digest)


def _check_parameter(name: str, values: Sequence[str], endpoint: Endpoint) -> None:
    if name in SINGLE:
        if len(values) > 1:
            raise InvalidRequest(f"`{name}` may be given once.", param=name)
    elif name == "group_by" or name in endpoint.filters:
        most = MAX_GROUPS if name == "group_by" else MAX_VALUES
        if len(values) > most or not all(0 < len(value) <= MAX_CHARS for value in values):
            raise InvalidRequest(f"`{name}` takes up to {most} values of 1 to {MAX_CHARS} characters.", param=name)
        if name == "group_by":
            for value in values:
                if value not in endpoint.groups and not (value.startswith(METADATA) and value != METADATA):
                    known = ", ".join((*endpoint.groups, f"{METADATA}<key>"))
                    raise UnsupportedParameter(f"`group_by` takes {known}.", param="group_by")
    else:
        shown = name[:64]
        raise UnsupportedParameter(f"`{shown}` is not supported here.", param=shown)


def _visible(caller: Caller, filters: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The filters that were asked for, within what the caller may see."""
    if caller.role == "owner" or caller.key_id == ANONYMOUS:
        return filters
    own = {"project_id": caller.tenant}
    if caller.role != "admin":
        own["api_key_id"] = caller.key_id
    for name, value in own.items():
        if set(filters.get(name, (value,))) != {value}:
            whose = "tenant" if name == "project_id" else "key"
            raise PermissionDenied(f"Your key sees the usage of its own {whose} only.", param=f"{name}s")
    return filters | {name: (value,) for name, value in own.items()}


def _continued(page: str, digest: str) -> tuple[int, int]:
    """Where the page begins and the range ends."""
    found = CURSOR.fullmatch(page)
    if found is None or int(found[1]) >= int(found[2]):
        raise InvalidRequest("`page` is not the `next_page` of an answer.", param="page")
    if found[3] != digest:
        raise InvalidRequest("`page` continues another query: repeat that one's parameters.", param="page")
    return int(found[1]), int(found[2])


def _one(given: Mapping[str, list[str]], name: str) -> str | None:
    return given[name][0] if name in given else None


def _number(given: Mapping[str, list[str]], name: str, least: int, most: int) -> int | None:
    text = _one(given, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        raise InvalidRequest(f"`{name}` must be a whole number from {least} to {most}.", param=name)
    return int(text)
