"""One conversation of this server with Redis: exchange after exchange, each with all that gathered during the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import orjson
import structlog

from forebay.errors import StorageUnavailable
from forebay.stores.breaker import Breaker
from forebay.stores.redis_impl.link import RedisLink, RedisUnavailable
from forebay.tenants.exchange import CONSTANTS, Pending
from forebay.tenants.fleet import Fleet
from forebay.tenants.grants import Grant, Grants, name_of
from forebay.tenants.news import News, Refund, Seeding
from forebay.tenants.parties import Party
from forebay.tenants.windows import DAY_MS

MAX_ASKS = 128
MAX_SEEDED = 500
"""Of one exchange, which no other server's can interrupt."""

BEAT_S, BEAT_CLOSED_S, PROBE_S = 0.5, 0.1, 0.5
"""How often this server is heard of: mostly, while shared budgets are closed, and while Redis is away."""

FLUSH_S = 0.02
"""How long what came back may wait for company."""

LEASE_MS = 10_000
"""Others count what runs here for so long after it was said last."""

log = structlog.get_logger(__name__)

Decide = Callable[[Pending, Sequence[int] | None], None]
"""Told Redis' answer to a request, or None where there is none. Must not wait."""


class Conversation:
    """A task of its own; nothing is said at the same time as anything else, so the order of what is said is certain."""

    def __init__(
        self,
        link: RedisLink,
        fleet: Fleet,
        grants: Grants,
        *,
        wall_ms: Callable[[], int],
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """`now_ms`: the clock of the limits; unset: that of Redis, which is the same for all."""
        self.fleet = fleet
        self.grants = grants
        self.breaker = Breaker("redis")
        self.in_places: set[Party] = set()
        """Keys and tenants with limited concurrency, of which requests run here."""
        self.num_exchanges = 0
        self.run_id = b""
        """Of the Redis that answered last; a new one with each start."""
        self._link = link
        self._wall_ms = wall_ms
        self._now_ms = now_ms
        self._joined = False
        self._was_open = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._flush: asyncio.TimerHandle | None = None
        self._seq = time.time_ns() // 1000
        self._pending: list[Pending] = []
        self._news = News()
        self._seeding: Seeding | None = None
        self._says_all = False
        self._day = 0
        self._beat_due = 0.0
        self._lease_due = 0.0

    @property
    def is_up(self) -> bool:
        return self._joined and not self.breaker.is_open

    @property
    def is_open(self) -> bool:
        """Whether what is left of shared budgets is known."""
        return self.is_up and self._was_open

    def begin(self, parties: Callable[[], Iterable[Party]], decide: Decide) -> None:
        """On the running loop. `parties`: all that may have spent anything."""
        self._parties = parties
        self._decide = decide
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Says what came back last, if Redis answers."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._link.close()

    def ask(self, pending: Pending) -> None:
        """While `is_up`."""
        self._pending.append(pending)
        self._wake.set()

    def say_all(self) -> None:
        """Budgets may have been set for keys and tenants that had none, of whose spending Redis knows nothing."""
        self._says_all = True

    def ended(self, grants: Iterable[Grant], parties: Iterable[Party], refunds: Iterable[Refund]) -> None:
        """A request has ended: it held of these grants, and ran in places of these parties."""
        news = self._news
        news.spent.update((grant.key, grant) for grant in grants)
        news.ran.update(parties)
        if self.is_up:
            news.refunds += refunds
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self._wake.set()

    async def _run(self) -> None:
        loaded = False
        while not self._closing:
            if not loaded and not (loaded := await self._loaded()):
                await asyncio.sleep(PROBE_S)
                continue
            await self._exchange()
            await self._pause()
        if self.is_up:
            await self._exchange()
        self._leave_all()

    async def _loaded(self) -> bool:
        try:
            await self.fleet.load()
        except StorageUnavailable:  # told of by the ledger's writer
            return False
        return True

    async def _pause(self) -> None:
        """Until there is something to say."""
        if self.breaker.is_open:
            await asyncio.sleep(PROBE_S)
        elif self._seeding is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._beat_due - time.monotonic())):
                    await self._wake.wait()
        if not self._closing:
            self._wake.clear()

    async def _exchange(self) -> None:
        """Never raises: requests that Redis does not decide are left to `decide`."""
        pending, self._pending = self._pending[:MAX_ASKS], self._pending[MAX_ASKS:]
        if self._pending:
            self._wake.set()
        news, self._news = self._news, News()
        if self._flush is not None:  # it has found company
            self._flush.cancel()
            self._flush = None
        message = self._message(pending, news)
        try:
            _, self.run_id, is_open, answers, fleet = await self._say(message)
        except RedisUnavailable as exc:
            self._news = news.unsaid(self._news)
            self._seeding = None
            self._beat_due = 0.0
            self.breaker.failed(exc.reason)
            for one in pending:
                self._decide(one, None)
            if self.breaker.is_open:
                self._leave_all()
            return
        self._joined = True
        self.num_exchanges += 1
        self.breaker.succeeded()
        if "fleet" in message:
            self.fleet.heard(fleet)
        self._note_open(bool(is_open))
        for one, answer in zip(pending, answers, strict=True):
            self._decide(one, answer)
        if self.fleet.is_new:
            with suppress(StorageUnavailable):  # once more with the next beat
                await self.fleet.keep()

    def _message(self, pending: list[Pending], news: News) -> dict[str, Any]:
        own = {grant.key: grant for one in pending for grant in one.grants} | news.spent
        wall = self._wall_ms()
        if wall // DAY_MS != self._day:
            self._day = wall // DAY_MS
            self.grants.drop_old(wall)
        state = self.fleet.state
        if self._seeding is None and (self._says_all or not state.seeded) and not state.evicts:
            self._says_all = False
            self._seeding = Seeding(self.grants.seed(self._parties(), self._day))
        begins = ends = None
        if self._seeding is not None:
            begins, chunk, ends = self._seeding.next(MAX_SEEDED)
            own |= {grant.key: grant for grant in chunk}
            if ends is not None:
                self._seeding = None
        if time.monotonic() >= self._lease_due:
            self._lease_due = time.monotonic() + LEASE_MS / 3000
            news.ran |= self.in_places
            self.in_places = {party for party in self.in_places if party.limits.in_flight}
        beats = ends is not None or time.monotonic() >= self._beat_due
        if beats:
            self._beat_due = time.monotonic() + (BEAT_S if self.is_open else BEAT_CLOSED_S)
        message = {
            "replica": self.fleet.replica_id,
            "constants": CONSTANTS,
            "own": [(grant.key, grant.lower(), grant.lasts_ms(wall) or 0) for grant in own.values()],
            "running": [(name_of(party), party.limits.in_flight) for party in news.ran],
            "lease_ms": LEASE_MS,
            "refunds": news.refunds,
            "asks": [one.message() for one in pending],
        }
        if beats:
            message["fleet"] = self.fleet.message()
        if begins is not None:
            message["seed_begins"] = begins
        if ends is not None:
            message["seed_ends"] = ends
        if self._now_ms is not None:
            message["now"] = self._now_ms()
        return message

    async def _say(self, message: dict[str, Any]) -> Any:
        """Said again on a new connection where the old one was gone: what is said is absolute, so that is harmless."""
        for is_last in (False, True):
            self._seq += 1
            try:
                answer = await self._link.exchange(orjson.dumps({"seq": self._seq} | message))
            except RedisUnavailable as exc:
                if is_last or not exc.lost:
                    raise
                continue
            if answer[0] == b"done":
                return answer
            self._seq = max(self._seq, int(answer[1]))  # said under this name before, by a clock that was ahead
        raise RedisUnavailable("another server speaks in this one's name")

    def _note_open(self, is_open: bool) -> None:
        if is_open != self._was_open:
            self._was_open = is_open
            state = self.fleet.state
            if is_open:
                log.info("shared_budgets_open", replicas=len(self.fleet.known))
            else:
                log.warning("shared_budgets_closed", missing=state.missing, redis_evicts=state.evicts)

    def _leave_all(self) -> None:
        pending, self._pending = self._pending, []
        for one in pending:
            self._decide(one, None)
