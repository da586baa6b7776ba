"""The ledger's metric families: its rows, its writer, what it has open, and how it compares with the engine."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from forebay.ledger.ledger import Ledger
from forebay.ledger.reconcile import Reconciliation
from forebay.ledger.sink import Sink
from forebay.observe.histogram import Histogram
from forebay.stores.database import Database

COMMIT_BOUNDS_S = (
    *(0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.00125, 0.0015, 0.00175, 0.002, 0.0025, 0.003, 0.004),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class LedgerFamilies:
    """Read at each scrape, on the event loop."""

    def __init__(self, database: Database, ledger: Ledger, reconciliation: Reconciliation, sink: Sink | None) -> None:
        self._sink = sink
        self._database = database
        self._ledger = ledger
        self._reconciliation = reconciliation
        self._commits = Histogram(COMMIT_BOUNDS_S)

    def begin(self) -> None:
        """Once the writer runs."""
        self._database.writer.on_commit = lambda seconds, num_writes: self._commits.observe(seconds)

    async def read(self) -> list[Metric]:
        await self._reconciliation.refresh()
        return list(self._families())

    def _families(self) -> Iterator[Metric]:
        writer = self._database.writer
        yield GaugeMetricFamily(
            "forebay_ledger_open_reservations", "Requests reserved and not yet settled.", value=self._ledger.num_open
        )
        yield GaugeMetricFamily(
            "forebay_ledger_refusing",
            "1: the disk takes nothing, new work is refused.",
            value=writer.refusing is not None,
        )
        yield GaugeMetricFamily(
            "forebay_ledger_kept_writes",
            "Settlements that the disk refused and that are tried again.",
            value=writer.num_kept,
        )
        yield CounterMetricFamily("forebay_ledger_commits", "Commits to the data file.", value=writer.num_commits)
        yield CounterMetricFamily("forebay_ledger_writes", "Writes in these commits.", value=writer.num_writes)
        commits = HistogramMetricFamily(
            "forebay_ledger_commit_seconds", "From a commit's begin until it is on the disk."
        )
        commits.add_metric((), *self._commits.read())
        yield commits
        yield GaugeMetricFamily("forebay_ledger_rows", "Number of the newest row.", value=self._reconciliation.last_seq)
        yield GaugeMetricFamily(
            "forebay_ledger_recovered_requests",
            "Requests that an earlier process left open, settled at this one's start.",
            value=self._ledger.num_recovered,
        )
        drift = GaugeMetricFamily(
            "forebay_ledger_drift_tokens",
            "Tokens that the engine counted and the ledger has not, beyond those in flight; negative: the other way.",
            labels=("kind",),
        )
        if (last := self._reconciliation.last) is not None:
            for kind, num_tokens in last.drift.items():
                drift.add_metric((kind,), num_tokens)
        yield drift
        if self._sink is not None:
            yield from self._sink_families(self._sink)

    def _sink_families(self, sink: Sink) -> Iterator[Metric]:
        yield GaugeMetricFamily("forebay_ledger_sink_up", "1: PostgreSQL takes rows.", value=sink.up)
        yield GaugeMetricFamily(
            "forebay_ledger_sink_lag_rows",
            "Rows that were added since the last one that PostgreSQL has, or needs not have.",
            value=max(0, self._reconciliation.last_seq - sink.cursor),
        )
        fault = GaugeMetricFamily(
            "forebay_ledger_sink_last_fault", "1 for what kept rows back last, also once it is over.", labels=("kind",)
        )
        if sink.last_fault is not None:
            fault.add_metric((sink.last_fault,), 1)
        yield fault
