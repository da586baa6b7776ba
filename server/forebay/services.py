"""Everything that was built for one app, in the order in which it is built."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from forebay import __version__
from forebay.admission import Admission
from forebay.background import Background
from forebay.chat.family_of import FamilyOf
from forebay.drain import Drain
from forebay.engines.auto import EngineChoice, build_engine, choose_engine
from forebay.engines.base import Engine, EngineInfo
from forebay.engines.host import EngineHost
from forebay.engines.model_source import model_name
from forebay.exposure import check_exposure
from forebay.failpoints import arm
from forebay.idempotency.answers import Answers
from forebay.idempotency.claims import Claims
from forebay.ledger.families import LedgerFamilies
from forebay.ledger.ledger import Ledger
from forebay.ledger.prices import read_prices
from forebay.ledger.reconcile import Reconciliation
from forebay.ledger.sink import Sink, build_sink
from forebay.ledger.usage import UsageReader
from forebay.models import ModelNames
from forebay.observe.logs import log_request
from forebay.observe.metrics import Metrics
from forebay.observe.record import RequestRecord
from forebay.observe.stats import Stats
from forebay.observe.system import SystemMonitor
from forebay.pipeline import Pipeline
from forebay.queued import Line
from forebay.reserving import Reserving
from forebay.settings import Settings
from forebay.stores.database import Database
from forebay.stores.secret import read_or_create_secret
from forebay.tenants.act_limit import ActLimit
from forebay.tenants.address_limit import AddressLimit
from forebay.tenants.directory import Directory
from forebay.tenants.fairness import FairQueue
from forebay.tenants.key_watch import KeyWatch
from forebay.tenants.sharing import Sharing, build_sharing

if TYPE_CHECKING:
    from forebay.cache.lookup import Cache
    from forebay.cache.verification.verification import Verification
    from forebay.cached import Cached

CLOSE_S = 8.0
FORCED_CLOSE_S = 0.5
FLUSH_S = 1.0
SINK_S = 1.0
"""What an engine may take to close: with nothing left to do, and when everything was told to end at once. And
what the disk may take to hold the last of the ledger, and PostgreSQL to take it."""

LEASE_MARGIN_S = 60.0
"""Beyond its timeout no request is alive; one that was lost sight of is settled then."""


@dataclass(frozen=True)
class Services:
    """What routes and middleware reach through `app.state.services`."""

    settings: Settings
    choice: EngineChoice
    models: ModelNames
    addresses: AddressLimit
    acts: ActLimit
    keys: Directory
    key_watch: KeyWatch
    database: Database
    drain: Drain
    host: EngineHost
    sharing: Sharing
    ledger: Ledger
    usage: UsageReader
    reconciliation: Reconciliation
    ledger_families: LedgerFamilies
    sink: Sink | None
    pipeline: Pipeline
    background: Background
    cache: Cache | None
    cached: Cached | None
    verification: Verification | None
    claims: Claims
    family_of: FamilyOf
    metrics: Metrics
    stats: Stats
    started_at: int = field(default_factory=lambda: int(time.time()))

    def fingerprint(self, info: EngineInfo) -> str:
        """OpenAI's `system_fingerprint`: answers to the same seed may differ when this does."""
        return _fingerprint(__version__, info.engine, info.model_id, info.revision, info.device, info.dtype)

    def observe(self, record: RequestRecord) -> None:
        """Logs and measures one finished request."""
        log_request(record)
        self.metrics.observe(record)
        self.stats.observe(record)

    def tick(self) -> None:
        """Called every second."""
        self.stats.tick()
        self.background.tick()
        self.ledger.tick()
        self.reconciliation.tick()
        self.claims.answers.tick()

    def begin(self) -> None:
        """On the running loop: settles what a crash left open, reads the keys, then loads the engine."""
        self.ledger.begin()
        self.ledger_families.begin()
        self.reconciliation.begin()
        if self.sink is not None:
            self.sink.begin()
        self.sharing.guard.seed(self.ledger.totals)
        self.claims.answers.begin()
        if self.cache is not None:
            self.cache.begin(self.observe)
        self.key_watch.begin()
        self.sharing.begin()
        self.host.begin()
        if self.verification is not None:
            self.verification.begin()

    async def close(self) -> None:
        """Whatever fails on the way, the ledger is closed."""
        async with AsyncExitStack() as last:
            if self.sink is not None:
                last.push_async_callback(self.sink.close, SINK_S)
            last.push_async_callback(self.ledger.close, FLUSH_S)
            last.callback(self.background.close)
            last.push_async_callback(self.reconciliation.close)
            last.push_async_callback(self.key_watch.close)
            last.push_async_callback(self.sharing.close)
            last.push_async_callback(self.host.close, FORCED_CLOSE_S if self.drain.forced else CLOSE_S)
            if self.verification is not None:
                last.push_async_callback(self.verification.close)
            if self.cache is not None:
                last.push_async_callback(self.cache.close)
            if self.cached is not None:
                last.push_async_callback(self.cached.close)
            last.push_async_callback(self.claims.close)


@lru_cache(maxsize=8)
def _fingerprint(*parts: str | None) -> str:
    """Of the parts in their order: the same for every answer of one engine."""
    return "fp_" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:10]


def _build_cache(
    settings: Settings, database: Database, secret: bytes, verification: Verification | None
) -> Cache | None:
    """None where it is off; then nothing of it is imported."""
    if settings.cache == "off":
        return None
    from forebay.cache.auto import build_cache

    return build_cache(settings, database, secret, verification)


def _build_verification(settings: Settings, host: EngineHost, background: Background) -> Verification | None:
    """None where nothing would be asked; then nothing of it is imported."""
    if settings.cache != "semantic" or not settings.cache_verification:
        return None
    from forebay.cache.verification.verification import Verification

    return Verification(host, background)


def build_services(settings: Settings, engine: Callable[[], Engine] | None = None) -> Services:
    """Builds, but starts nothing; `host.begin()` on the running loop does. `engine` overrides the chosen one's builder.

    Raises ConfigurationError for settings that cannot serve.
    """
    check_exposure(settings)
    arm(settings.failpoint)
    folder = settings.data_root
    keys = Directory(settings)
    choice = choose_engine(settings)
    drain = Drain()
    host = EngineHost(
        engine or (lambda: build_engine(settings, choice)),
        lazy=settings.lazy_load,
        stall_timeout_s=settings.stall_timeout_s,
        max_restarts=settings.engine_restarts,
        on_fatal=drain.fail,
    )

    def num_slots() -> int:
        """The engine may step fewer sequences together than it was asked to; known once it has loaded."""
        return settings.max_num_seqs if host.info is None else host.info.num_slots

    admission, reading = (
        Admission(
            num_slots=slots,
            max_queued=settings.max_queued_requests,
            max_queued_tokens=settings.max_queued_tokens,
            unit=unit,
        )
        for unit, slots in (("sequences", num_slots), ("texts", lambda: settings.max_num_seqs))
    )
    queue = FairQueue(num_slots=num_slots, num_kept=settings.kept_free_slots, num_open=host.num_sequences)
    secret = settings.secret.get_secret_value().encode() if settings.secret else read_or_create_secret(folder)
    prices = None if settings.prices_file is None else read_prices(settings.prices_file)
    lease_s = settings.request_timeout_s + LEASE_MARGIN_S
    database = Database(folder, drain.fail)
    ledger = Ledger(
        database,
        secret,
        prices,
        strict=settings.ledger_strict,
        lease_s=lease_s,
        keep_months=settings.ledger_keep_months,
        with_sink=settings.ledger_postgres_url is not None,
    )
    sink = build_sink(settings, database)
    key_watch = KeyWatch(folder, keys)
    sharing = build_sharing(settings, database, keys, key_watch)
    line, reserving = Line(queue, secret), Reserving(sharing.guard, ledger)
    background = Background(host, line, ledger)
    verification = _build_verification(settings, host, background)
    cache = _build_cache(settings, database, secret, verification)
    cached = None
    if cache is not None:
        from forebay.cached import build_cached

        cached = build_cached(cache, host, admission, line, queue, drain, reserving, settings.request_timeout_s)
    pipeline = Pipeline(host, admission, reading, line, drain, reserving, cached)
    answers = Answers(
        database,
        ttl_s=settings.idempotency_ttl_s,
        max_total_bytes=settings.idempotency_max_total_mib << 20,
        max_keys=settings.idempotency_max_keys,
    )
    claims = Claims(
        answers, ledger, drain, grace_s=settings.idempotency_grace_s, max_bytes=settings.idempotency_max_bytes
    )
    models = ModelNames.of(
        settings.served_model_names, "scripted" if choice.engine == "scripted" else model_name(settings)
    )
    reconciliation = Reconciliation(database, ledger, host.work)
    ledger_families = LedgerFamilies(database, ledger, reconciliation, sink)
    monitor = SystemMonitor()
    families: list[Callable[[], Awaitable[Iterable[Metric]]]] = [ledger_families.read, sharing.families]
    if cached is not None:
        families.append(cached.families.read)
    if verification is not None:
        from forebay.cache.verification.families import VerificationFamilies

        families.append(VerificationFamilies(verification).read)
    return Services(
        settings=settings,
        choice=choice,
        models=models,
        addresses=AddressLimit(settings.address_rpm),
        acts=ActLimit(),
        keys=keys,
        key_watch=key_watch,
        database=database,
        drain=drain,
        host=host,
        sharing=sharing,
        ledger=ledger,
        usage=UsageReader(database),
        reconciliation=reconciliation,
        ledger_families=ledger_families,
        sink=sink,
        pipeline=pipeline,
        background=background,
        cache=cache,
        cached=cached,
        verification=verification,
        claims=claims,
        family_of=FamilyOf(settings.reasoning_family),
        metrics=Metrics(host, queue, drain, monitor, families),
        stats=Stats(host, queue, drain, monitor),
    )
