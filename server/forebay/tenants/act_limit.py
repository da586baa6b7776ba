"""How often the administrators of a tenant may act: each act is kept for good, and the disk is everybody's."""

from __future__ import annotations

import time

from forebay.errors import RateLimited
from forebay.tenants.buckets import UNIT, Bucket
from forebay.types import Caller

PER_MINUTE = 60
MAX_KNOWN = 10_000


class ActLimit:
    """A bucket for each tenant, in this process. Owners may act as often as they like."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def check(self, caller: Caller) -> None:
        """Counts one act, refused or not. Raises `RateLimited`."""
        if caller.role == "owner":
            return
        now = time.monotonic_ns() // 1_000_000
        bucket = self._buckets.get(caller.tenant)
        if bucket is None:
            if len(self._buckets) >= MAX_KNOWN:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[caller.tenant] = Bucket(PER_MINUTE, now)
        bucket.refill(PER_MINUTE, now)
        if wait_ms := bucket.wait(UNIT):
            raise RateLimited(
                f"Rate limit reached for administrators of your tenant: {PER_MINUTE} acts per minute.",
                retry_after_s=wait_ms / 1000,
            )
        bucket.take(UNIT)
