"""What a look-up comes to: a stored answer, or a place where an answer is begun, joined, and kept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from forebay.cache.entries import Entry, expiry
from forebay.cache.flight import FlightReader, Start
from forebay.cache.policy import Access, may_be_stored
from forebay.cache.scope import Keys
from forebay.cache.stores.auto import now_ms
from forebay.ledger.rows import CacheKind
from forebay.observe.record import CacheOutcome, RequestRecord
from forebay.types import Caller, Delta, Usage
from forebay.values import value

if TYPE_CHECKING:
    from forebay.cache.lookup import Cache
    from forebay.cache.semantic import Candidate, Sighting


@value
class Place:
    """Where a request may begin what others read, or read what another has begun. `seen`: by the semantic tier."""

    cache: Cache
    caller: Caller
    model: str
    keys: Keys
    flight: Hashable
    access: Access
    num_prompt_tokens: int
    text: str
    seen: Sighting | None = None

    @property
    def is_taken(self) -> bool:
        return self.flight in self.cache.flights

    def join(self, start: Start, *, whole: bool = False) -> FlightReader:
        if self.is_taken:
            self.lose()
        keep = None if self.access.stores == "off" else self.keep
        return self.cache.flights.join(self.flight, start, keep=keep, whole=whole)

    def note(self, record: RequestRecord, outcome: CacheOutcome) -> None:
        """What became of it; one that is not looked up is bypassed, whatever is stored of it."""
        if outcome == "miss" and self.access.reads == "off":
            outcome = "bypass"
        self.cache.note(record, outcome, self.access, self.keys.exact)

    def keep(self, deltas: Sequence[Delta]) -> None:
        """A whole answer to the request: stored, and a label of its candidate."""
        cache, seen, last = self.cache, self.seen, deltas[-1]
        if cache.semantic is not None and last.times is not None:
            cache.semantic.costs.generated(last.times.prefill_s + last.times.decode_s)
        if cache.labelling is not None and seen is not None and seen.candidate is not None:
            cache.labelling.tell(seen.candidate, deltas)
        usage = Usage(
            self.num_prompt_tokens,
            sum([len(delta.token_ids) for delta in deltas]),
            deltas[0].num_cached_tokens,
            sum([delta.num_reasoning_tokens for delta in deltas]),
        )
        if self.access.stores != "off" and may_be_stored(last.finish_reason, num_tokens=usage.completion_tokens):
            embedding = None if seen is None or self.access.stores != "semantic" else seen.embedding
            cache.store_answer(self._entry(deltas, usage, embedding))

    def lose(self) -> None:
        """There will be no answer of its own."""
        if self.cache.labelling is not None and self.seen is not None and self.seen.candidate is not None:
            self.cache.labelling.lose(self.seen.candidate)

    def _entry(self, deltas: Sequence[Delta], usage: Usage, embedding: bytes | None) -> Entry:
        keys, created_at = self.keys, now_ms()
        return Entry(
            keys.exact,
            keys.scope,
            "" if embedding is None else self.text,  # of a question that is only known again its key is enough
            self.caller.tenant,
            self.model,
            self.cache.keys.epoch,
            created_at,
            expiry(created_at, self.cache.ttl_s),
            tuple(deltas),
            usage,
            "stop",
            embedding,
        )


@value
class Hit:
    """A stored answer: to the very same request or, with a `candidate`, to another one.

    `own`: where the answer of the request itself would be kept, were it generated.
    """

    cache: Cache
    entry: Entry
    access: Access
    own: Place
    candidate: Candidate | None = None

    @property
    def kind(self) -> CacheKind:
        return "exact" if self.candidate is None else "semantic"

    @property
    def wants_label(self) -> bool:
        """It is to be generated again, to learn whether it was right: `own.keep` is to be told, or `own.lose`."""
        return self.candidate is not None and self.candidate.ruling.labelled

    def note(self, record: RequestRecord) -> None:
        self.cache.note(record, "hit", self.access, self.entry.id, kind=self.kind)
        record.cache_tier = self.kind
        headers = record.answer_headers
        headers.append((b"x-cache-tier", self.kind.encode()))
        if self.candidate is not None:
            headers.append((b"x-cache-similarity", b"%.3f" % self.candidate.similarity))
            headers.append((b"x-cache-score", b"%.3f" % self.candidate.ruling.score))
        age_s = max(0, (now_ms() - self.entry.created_at) // 1000)
        headers.append((b"age", b"%d" % age_s))
