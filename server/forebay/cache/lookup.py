"""The pipeline's step between reading a request and reserving for it: an answer, a place in a flight, or neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.cache.controls import NO_CONTROLS, Controls
from forebay.cache.entries import Entry, Seal
from forebay.cache.flight import Flights
from forebay.cache.place import Hit, Place
from forebay.cache.policy import Access, Asked, CacheRules, Reason
from forebay.cache.scope import Keys, Question, ScopeKeys, chat_question, completion_question, model_of
from forebay.cache.stores.auto import now_ms
from forebay.cache.stores.tiered import TieredStore
from forebay.engines.base import EngineInfo
from forebay.errors import NotCached
from forebay.ledger.rows import CacheKind
from forebay.observe.record import CacheOutcome, RequestRecord
from forebay.types import Caller, Chat, GenerationRequest, Prompt, Sampling
from forebay.values import value

if TYPE_CHECKING:
    from forebay.cache.labelling import Labelling
    from forebay.cache.semantic import SemanticTier

TOUCH_MS = 60_000
MAX_TOUCHED = 4096
"""How often the store is told that an entry is in use, and of how many that is known."""

X_CACHE: dict[CacheOutcome, bytes] = {"hit": b"hit", "joined": b"coalesced", "miss": b"miss", "bypass": b"bypass"}


Tell = Callable[[RequestRecord], None]


def _tell_nobody(record: RequestRecord) -> None:
    pass


@value
class Ask:
    """What a request asks of the cache. `question` None: there is nothing to match."""

    question: Question | None
    controls: Controls


class Cache:
    """Lives on one event loop: `begin`, then `look_up` for each request, then `close`."""

    def __init__(
        self,
        store: TieredStore,
        keys: ScopeKeys,
        rules: CacheRules,
        seal: Seal,
        *,
        ttl_s: float,
        semantic: SemanticTier | None = None,
        labelling: Labelling | None = None,
    ) -> None:
        """`semantic` and `labelling`: both, or neither."""
        self.semantic = semantic
        self.labelling = labelling
        self.store = store
        self.keys = keys
        self.rules = rules
        self.ttl_s = ttl_s
        self.seal = seal
        self.flights = Flights()
        self.lookups: Counter[tuple[str, CacheOutcome]] = Counter()
        self.bypasses: Counter[Reason] = Counter()
        self.num_stored = 0
        self.num_too_large = 0
        self._touched: dict[str, int] = {}
        self.tell: Tell = _tell_nobody
        """Logs and counts a request that outlasts its client."""

    no_controls = NO_CONTROLS

    @staticmethod
    def ask_chat(
        chat: Chat, sampling: Sampling, controls: Controls, *, max_tokens: int | None, include_reasoning: bool
    ) -> Ask:
        """`max_tokens`: what the client asked for, if anything."""
        return Ask(chat_question(chat, sampling, max_tokens=max_tokens, include_reasoning=include_reasoning), controls)

    @staticmethod
    def ask_completion(prompt: Prompt, sampling: Sampling, controls: Controls, *, max_tokens: int | None) -> Ask:
        return Ask(completion_question(prompt, sampling, max_tokens=max_tokens), controls)

    def begin(self, tell: Tell) -> None:
        """On the running loop."""
        self.tell = tell
        self.store.begin()
        if self.semantic is not None and self.labelling is not None:
            self.semantic.begin()
            self.labelling.begin()

    async def close(self) -> None:
        await self.flights.close()
        if self.semantic is not None and self.labelling is not None:
            await self.labelling.close()
            await self.semantic.close()
        await self.store.close()

    async def look_up(
        self,
        caller: Caller,
        record: RequestRecord,
        ask: Ask,
        requests: Sequence[GenerationRequest],
        info: EngineInfo,
        family: str | None,
    ) -> Hit | Place | None:
        """The stored answer, or where it may be shared and stored, or None: the request is by itself.

        Raises `NotCached` where nothing but a stored answer was asked for.
        """
        request, question = requests[0], ask.question
        asked = Asked(
            None if question is None else question.text,
            request.sampling,
            num_choices=request.num_choices,
            num_prompts=len(requests),
        )
        access = self.rules.access(caller, ask.controls, asked)
        if question is None or access.reads == access.stores == "off":
            self.note(record, "bypass", access)
            if access.only_if_cached:
                raise not_cached()
            return None
        keys = self.keys.of(caller.tenant, model_of(info, family=family), question)
        num_prompt_tokens = len(request.prompt.token_ids)
        # Prompts that differ in spaces are one question, and have not the same number of tokens. Who goes first does
        # not read what goes last.
        shape = (num_prompt_tokens, request.sampling.max_tokens, caller.priority)
        flight: Hashable = (keys.exact, *shape) if access.can_join else object()
        place = Place(self, caller, info.model_id, keys, flight, access, num_prompt_tokens, question.text)
        if access.reads != "off" and (entry := await self._find(keys, access, flight)) is not None:
            self._touch(entry)
            return Hit(self, entry, access, place)
        if flight not in self.flights and self.semantic is not None and access.searches:
            place = await self._seen(self.semantic, place, info)
            if (hit := self._semantic_hit(place)) is not None:
                return hit
        if access.only_if_cached:
            place.lose()
            self.note(record, "miss", access)
            raise not_cached()
        if access.stores == "off":
            place.lose()
            self.note(record, "miss", access)
            return None
        return place

    async def _seen(self, semantic: SemanticTier, place: Place, info: EngineInfo) -> Place:
        owner = self.keys.owner_of(place.caller.tenant)
        seen = await semantic.look(
            owner, place.keys.scope, place.text, place.access, info, is_wanted=lambda: not place.is_taken
        )
        return replace(place, seen=seen)

    def _semantic_hit(self, place: Place) -> Hit | None:
        candidate = None if place.seen is None else place.seen.candidate
        if candidate is None or candidate.ruling.action != "serve":
            return None
        self._touch(candidate.entry)
        return Hit(self, candidate.entry, place.access, place, candidate)

    async def _find(self, keys: Keys, access: Access, flight: Hashable) -> Entry | None:
        if access.only_if_cached or flight not in self.flights:
            sealed = await self.store.get(keys.exact)
        else:
            sealed = self.store.find(keys.exact)
        if sealed is None:
            return None
        if not access.allows_age(now_ms() - sealed.created_at):
            return None
        entry = self.seal.open(sealed)
        if entry is None or entry.id != keys.exact:
            self.store.discard(sealed)
            return None
        return entry  # of its very id, and so of this scope, whichever embedder's

    def _touch(self, entry: Entry) -> None:
        now = now_ms()
        if now - self._touched.get(entry.id, 0) >= TOUCH_MS:
            if len(self._touched) >= MAX_TOUCHED:
                self._touched.clear()
            self._touched[entry.id] = now
            self.store.touch(entry.id)

    def store_answer(self, entry: Entry) -> None:
        sealed = self.seal.close(entry)
        if sealed is None:
            self.num_too_large += 1
        else:
            self.num_stored += 1
            self.store.put(sealed)

    def note(
        self,
        record: RequestRecord,
        outcome: CacheOutcome,
        access: Access,
        entry_id: str | None = None,
        kind: CacheKind = "exact",
    ) -> None:
        """What came of it: in the record, in the answer's headers, in the counters. `kind`: of a hit."""
        record.cache = outcome
        self.lookups["exact", "miss" if kind == "semantic" else outcome] += 1
        headers = record.answer_headers
        headers.append((b"x-cache", X_CACHE[outcome]))
        if entry_id is not None:
            headers.append((b"x-cache-id", entry_id.encode()))
        if access.reads == "off" and access.reason is not None:
            self.bypasses[access.reason] += 1
            headers.append((b"x-cache-reason", access.reason.encode()))


def not_cached() -> NotCached:
    return NotCached("There is no stored answer to this request, and it asks for nothing else (only-if-cached).")
