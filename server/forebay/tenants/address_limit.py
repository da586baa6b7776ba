"""A limit per address on what needs no key: open documents, and keys that are none."""

from __future__ import annotations

import os
import time
import warnings
from typing import Literal

from limits import RateLimitItemPerMinute
from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.requests import Request

from forebay.errors import RateLimited


class AddressLimit:
    """Counts in this process's memory, per minute; an address that goes on is refused until the minute is over.

    Each kind is counted alone, and probes not at all: a proxy's address is that of many, and who tries keys behind it
    must not end what a load balancer or a scraper sees.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._item = RateLimitItemPerMinute(per_minute)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is nothing in the file; without one it would read ./.env
            self._limiter = Limiter(get_remote_address, storage_uri="memory://", config_filename=os.devnull).limiter

    def check(self, request: Request, kind: Literal["keys", "documents"]) -> None:
        """Counts one. Raises `RateLimited`."""
        address = get_remote_address(request)
        if not self._limiter.hit(self._item, kind, address):
            ends_at, _ = self._limiter.get_window_stats(self._item, kind, address)
            raise RateLimited(
                f"Rate limit reached for this address: {self._per_minute} requests per minute without a valid key.",
                retry_after_s=max(1.0, ends_at - time.time()),
            )
