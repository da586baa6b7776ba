"""The cache's metric families, read at each scrape, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay.cache.lookup import Cache
from forebay.cache.stores.base import CacheUnavailable, Held

if TYPE_CHECKING:
    from forebay.cache.semantic_families import ShadowCounts

ASK_S = 1.0
"""What a scrape waits for the store."""


class CacheFamilies:
    def __init__(self, cache: Cache, shadow: ShadowCounts | None = None) -> None:
        self._cache = cache
        self._shadow = shadow

    async def read(self) -> list[Metric]:
        """What the store holds is left out while it gives no answer."""
        held = None
        if not self._cache.store.reads.is_open:
            try:
                async with asyncio.timeout(ASK_S):
                    tenants = (await self._cache.store.held()).values()
                held = Held(sum(one.num_entries for one in tenants), sum(one.num_bytes for one in tenants))
            except (CacheUnavailable, TimeoutError):
                pass
        return list(self._families(held))

    def _families(self, held: Held | None) -> Iterator[Metric]:
        cache, store = self._cache, self._cache.store
        lookups = CounterMetricFamily(
            "forebay_cache_lookups",
            "Requests by what the cache had for them: hit, joined (it was being generated), miss, bypass (not asked); "
            "in the semantic tier those that the exact one had nothing for.",
            labels=("tier", "outcome"),
        )
        for labels, count in cache.lookups.items():
            lookups.add_metric(labels, count)
        if cache.semantic is not None:
            for outcome, count in cache.semantic.outcomes.items():
                lookups.add_metric(("semantic", outcome), count)
        yield lookups
        bypasses = CounterMetricFamily("forebay_cache_bypasses", "Why requests were not looked up.", labels=("reason",))
        for reason, count in cache.bypasses.items():
            bypasses.add_metric((reason,), count)
        yield bypasses
        yield CounterMetricFamily("forebay_cache_stored", "Answers that were stored.", value=cache.num_stored)
        yield CounterMetricFamily(
            "forebay_cache_too_large", "Answers that were not, as they are too large.", value=cache.num_too_large
        )
        yield CounterMetricFamily(
            "forebay_cache_seals_refused",
            "Stored entries that were not written by us, or changed since.",
            value=cache.seal.num_refused,
        )
        yield CounterMetricFamily(
            "forebay_cache_writes_left_out", "Writes to the store for which too many waited.", value=store.num_left_out
        )
        yield GaugeMetricFamily("forebay_cache_flights", "Answers that others may join now.", value=len(cache.flights))
        yield GaugeMetricFamily(
            "forebay_cache_memory_bytes", "Of answers held in memory.", value=store.num_memory_bytes
        )
        if store.index is not None:
            yield GaugeMetricFamily(
                "forebay_cache_index_bytes", "Of embeddings held in memory.", value=store.index.num_bytes
            )
            yield CounterMetricFamily(
                "forebay_cache_index_dropped",
                "Embeddings that left memory because there was no room.",
                value=store.index.num_dropped,
            )
        up = GaugeMetricFamily("forebay_cache_store_up", "1: the store behind memory answers.", labels=("calls",))
        up.add_metric(("reads",), not store.reads.is_open)
        up.add_metric(("writes",), not store.writes.is_open)
        yield up
        if held is not None:
            yield GaugeMetricFamily("forebay_cache_entries", "Answers in the store.", value=held.num_entries)
            yield GaugeMetricFamily("forebay_cache_bytes", "Of answers in the store.", value=held.num_bytes)
        if cache.semantic is not None and cache.labelling is not None and self._shadow is not None:
            from forebay.cache.semantic_families import semantic_families

            yield from semantic_families(cache.semantic, cache.labelling, self._shadow)
