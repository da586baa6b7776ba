"""The semantic tier: a stored answer to another message of the same scope that asks the same."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import structlog

from forebay.cache.analysis import analyse, match_form
from forebay.cache.assurance import Assurance
from forebay.cache.calibration import Calibration
from forebay.cache.costs import Costs
from forebay.cache.decision import judge
from forebay.cache.entries import Entry, Seal
from forebay.cache.explain import Explanation, explain
from forebay.cache.index import cosine
from forebay.cache.label_file import LabelFile
from forebay.cache.labels import Ruling
from forebay.cache.odds import combined
from forebay.cache.policy import Access
from forebay.cache.source import maker_of
from forebay.cache.spelling import load_words
from forebay.cache.stores.auto import now_ms
from forebay.cache.stores.base import Neighbour
from forebay.cache.stores.tiered import TieredStore
from forebay.cache.verifier import Verifier
from forebay.engines.base import EngineInfo
from forebay.observe.histogram import Histogram
from forebay.values import value

if TYPE_CHECKING:
    from forebay.embedding.batcher import EmbeddingBatcher

NUM_NEAREST = 4
LOOK_S = 0.25
"""What a look-up may take; a request that it takes longer for goes on without."""

UNSURE = (0.2, 0.95)
"""Scores between which the served model is asked, where it has earned it; without its word nothing is decided there."""

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25)

Outcome = Literal["hit", "observed", "near_miss", "refused", "unsure", "none", "skipped", "timeout", "failed"]
"""`observed`: would have been a hit, were there labels enough; `refused`: guards speak against all that are near;
`unsure`: the served model was to be asked, and was not; `none`: nothing is near; `skipped`: it does not pay."""

State = Literal["loading", "on", "off", "failed"]
"""`off`: looking up does not pay for now; `failed`: the embedder could not be loaded."""

log = structlog.get_logger(__name__)


@value
class Candidate:
    """The stored answer that came into question for a message, and what was decided.

    `similarity` is the cosine. The ruling's score is the cautious chance that both have one answer.
    """

    asked: str
    entry: Entry
    similarity: float
    ruling: Ruling
    assurance: Assurance

    def learn(self, *, same: bool | None) -> None:
        """Its label, once. None: it was lost."""
        self.assurance.learn(self.ruling, same=same)


@value
class Sighting:
    """What a look-up has brought: the message's embedding, as entries have it, and the best that is near."""

    embedding: bytes | None = None
    candidate: Candidate | None = None


NOTHING = Sighting()


class SemanticTier:
    """Lives on the event loop of its cache. Whatever fails in it is a miss."""

    def __init__(
        self,
        embedder: EmbeddingBatcher,
        calibration: Calibration,
        store: TieredStore,
        seal: Seal,
        labels: LabelFile,
        costs: Costs,
        verifier: Verifier | None = None,
        *,
        epoch: int = 0,
    ) -> None:
        """Until it is known whether the `verifier` is asked, nothing is looked up: scores would not be comparable.

        `epoch`: the operator's, of corpus and weights.
        """
        self.embedder = embedder
        self.calibration = calibration
        self.labels = labels
        self.costs = costs
        self.verifier = verifier
        self.outcomes: Counter[Outcome] = Counter()
        self.embed_s = Histogram(BOUNDS_S)
        self.lookup_s = Histogram(BOUNDS_S)
        self._name = maker_of(calibration, epoch)
        self._store = store
        self._seal = seal
        self._state: Literal["loading", "on", "failed"] = "loading"
        self._failing = False
        self._starting: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        if self._state == "on" and not self.is_ready:
            return "loading"
        return "off" if self._state == "on" and self.costs.off else self._state

    @property
    def is_ready(self) -> bool:
        return self._state == "on" and (self.verifier is None or self.verifier.is_settled)

    def begin(self) -> None:
        """On the running loop; until the embedder is loaded, nothing is looked up."""
        self.labels.begin()
        self._starting = asyncio.create_task(self._start(), name="embedder")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self.labels.close()
        await self.embedder.close()

    def source(self, info: EngineInfo) -> str:
        """What makes scores and answers: labels of one source say nothing of another."""
        parts = [self._name, f"{info.model_id}@{info.revision or '-'}"]
        return " ".join(parts if self.verifier is None or self.verifier.name is None else [*parts, self.verifier.name])

    async def look(
        self,
        owner: str,
        scope: str,
        text: str,
        access: Access,
        info: EngineInfo,
        is_wanted: Callable[[], bool],
    ) -> Sighting:
        """`is_wanted`: asked before anything is decided, as it may have become needless meanwhile. Raises nothing."""
        if not self.is_ready:
            return NOTHING
        if not self._pays():
            self.outcomes["skipped"] += 1
            return NOTHING
        began, embedding = time.perf_counter(), None
        candidate: Candidate | None = None
        outcome: Outcome | None
        try:
            async with asyncio.timeout(LOOK_S):
                embedding = await self._embed(text, owner)
                if access.reads != "semantic":
                    return Sighting(embedding)
                near = await self._store.nearest(scope, embedding, NUM_NEAREST)
                opened = self._opened(scope, embedding, near, access)
                # Beside the loop: words chosen for it keep it busy for tens of milliseconds.
                best = await asyncio.to_thread(self._best, text, opened) if opened else None
            if best is None:
                outcome = "refused" if opened else "none"
            else:
                candidate, outcome = await self._decided(owner, text, best, info, is_wanted)
        except Exception as exc:
            outcome = self._failed(exc)
        else:
            self._failing = False
        if outcome is not None:
            self._count(time.perf_counter() - began, outcome)
        return Sighting(embedding, candidate)

    def generated(self, num_tokens: int, engine_s: float) -> None:
        """What an answer costs that is no hit."""
        self.costs.generated(engine_s)
        if self.verifier is not None:
            self.verifier.generated(num_tokens, engine_s)

    async def explain(self, owner: str, asked: str, stored: str) -> Explanation:
        """Raises what the embedder raises."""
        first, second = [await self.embedder.embed(match_form(text), apart=owner) for text in (asked, stored)]
        return await asyncio.to_thread(explain, asked, stored, float(first @ second), self.calibration)

    async def _start(self) -> None:
        try:
            await self.embedder.start()
            await asyncio.to_thread(load_words)
        except Exception as exc:
            self._state = "failed"
            log.error("semantic_tier_failed", exc_info=exc)
        else:
            self._state = "on"

    def _pays(self) -> bool:
        was_off, wanted = self.costs.off, self.costs.wants_lookup()
        if was_off and not self.costs.off:
            log.info("semantic_lookups_tried_again")
        return wanted

    async def _embed(self, text: str, owner: str) -> bytes:
        began = time.perf_counter()
        vector = await self.embedder.embed(match_form(text), apart=owner)
        self.embed_s.observe(time.perf_counter() - began)
        return vector.tobytes()

    def _opened(
        self, scope: str, embedding: bytes, near: Sequence[Neighbour], access: Access
    ) -> list[tuple[Entry, float]]:
        """Those that are ours and young enough, each with its cosine, of what is signed."""
        found, now = [], now_ms()
        for neighbour in near:
            entry = self._seal.open(neighbour.entry)
            if entry is None or entry.scope != scope:
                self._store.discard(neighbour.entry)
            elif entry.expires_at > now and access.allows_age(now - entry.created_at):
                found.append((entry, cosine(embedding, entry.embedding or b"")))
        return found

    async def _decided(
        self,
        owner: str,
        text: str,
        best: tuple[Entry, float, float],
        info: EngineInfo,
        is_wanted: Callable[[], bool],
    ) -> tuple[Candidate | None, Outcome | None]:
        """What the best of what is near comes to; nothing where it is not wanted any more."""
        entry, similarity, score = best
        if self.verifier is not None and self.verifier.name is not None and UNSURE[0] <= score < UNSURE[1]:
            if not self.verifier.is_worth(entry.usage.completion_tokens, score):
                return None, "unsure"
            said = await self.verifier.same_question(text, entry.text, owner)
            if said is None:
                return None, "unsure"
            score = combined(score, said)
        if not is_wanted():
            return None, None
        assurance = self.labels.groups(self.source(info)).of(owner)
        candidate = Candidate(text, entry, similarity, assurance.decide(score), assurance)
        return candidate, _OUTCOMES[candidate.ruling.action]

    def _best(self, text: str, near: Sequence[tuple[Entry, float]]) -> tuple[Entry, float, float] | None:
        """With its cosine and score; None where guards refuse all. Reads nothing that the loop changes."""
        best: tuple[Entry, float, float] | None = None
        asked = analyse(text)
        for entry, similarity in near:
            verdict = judge(asked, analyse(entry.text), similarity, self.calibration)
            score = verdict.probability.score
            if verdict.refusal is None and (best is None or score > best[2]):
                best = entry, similarity, score
        return best

    def _count(self, taken_s: float, outcome: Outcome) -> None:
        self.outcomes[outcome] += 1
        self.lookup_s.observe(taken_s)
        was_off = self.costs.off
        self.costs.looked_up(taken_s, hit=outcome in ("hit", "observed"))
        if self.costs.off and not was_off:
            log.info(
                "semantic_lookups_do_not_pay",
                hit_rate=round(self.costs.hit_rate, 4),
                break_even=round(self.costs.break_even, 4),
            )

    def _failed(self, failure: Exception) -> Outcome:
        if isinstance(failure, TimeoutError):
            return "timeout"
        if not self._failing:
            log.warning("semantic_lookup_failed", exc_info=failure)
        self._failing = True
        return "failed"


_OUTCOMES: dict[str, Outcome] = {"serve": "hit", "observe": "observed", "miss": "near_miss"}
