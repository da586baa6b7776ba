"""One prompt's deltas, for which the engine is asked once their turn has come."""

from __future__ import annotations

import hashlib
import hmac

from forebay.engines.base import Engine
from forebay.failpoints import failpoint
from forebay.tenants.fairness import FairQueue, Turn
from forebay.types import NO_WORK, Caller, CountedDeltas, Delta, EngineWork, GenerationRequest, Take

MAX_SALTS = 1024


class Line:
    """The fair queue, and what tells tenants apart in the engine's prefix cache."""

    def __init__(self, queue: FairQueue, secret: bytes) -> None:
        self._queue = queue
        self._secret = secret
        self._salts: dict[str, str] = {}

    def join(self, engine: Engine, caller: Caller, request: GenerationRequest) -> QueuedDeltas:
        turn = self._queue.join(caller, request.num_choices, len(request.prompt.token_ids))
        return QueuedDeltas(engine, request, turn, self.salt(caller.tenant))

    @property
    def has_room(self) -> bool:
        """Whether work that nobody asked for would be in nobody's way."""
        return self._queue.has_spare

    def salt(self, tenant: str) -> str:
        """Tenants share no prefix cache, so none can time another's prompts (CVE-2025-46570)."""
        salt = self._salts.get(tenant)
        if salt is None:
            if len(self._salts) >= MAX_SALTS:
                self._salts.clear()
            salt = hmac.new(self._secret, tenant.encode(), hashlib.sha256).hexdigest()[:32]
            self._salts[tenant] = salt
        return salt


class QueuedDeltas:
    """What `engine.generate(request)` gives, later, and counted against the key's turn.

    The first read waits for the turn. Times that deltas carry are the engine's; `queue_s` is beside them.
    """

    def __init__(self, engine: Engine, request: GenerationRequest, turn: Turn, cache_salt: str) -> None:
        self._engine = engine
        self._request = request
        self._cache_salt = cache_salt
        self._turn = turn
        self._source: CountedDeltas | None = None
        self._num_counted = 0

    @property
    def num_tokens(self) -> int:
        return 0 if self._source is None else self._source.num_tokens

    @property
    def num_prompt_tokens(self) -> int:
        return len(self._request.prompt.token_ids)

    @property
    def work(self) -> EngineWork:
        return NO_WORK if self._source is None else self._source.work

    @property
    def dispatched(self) -> bool:
        """Whether the engine has it, or had it."""
        return self._source is not None

    @property
    def queue_s(self) -> float:
        """Seconds it has waited for its turn."""
        return self._turn.queue_s

    def __aiter__(self) -> QueuedDeltas:
        return self

    async def __anext__(self) -> Delta:
        turn = self._turn
        source = self._source
        if source is None:
            await turn.wait()
            source = self._source = self._engine.generate(self._request.dispatched(turn.priority, self._cache_salt))
            failpoint("dispatched")
        delta = await anext(source)
        self._count(source)
        if delta.finish_reason is not None:
            turn.ended()
        return delta

    def hand_to(self, take: Take) -> None:
        """What the engine gives while a consumer waits is offered to `take`. After the first read."""
        source = self._source
        assert source is not None

        def offered(delta: Delta) -> bool:
            if not take(delta):
                return False
            num_tokens = len(delta.token_ids)
            self._turn.generated(num_tokens)
            self._num_counted += num_tokens
            return True

        source.take = offered

    def _count(self, source: CountedDeltas) -> None:
        """What the engine has generated, read or not."""
        num_tokens = source.num_tokens
        self._turn.generated(num_tokens - self._num_counted)
        self._num_counted = num_tokens

    async def aclose(self) -> None:
        try:
            if self._source is not None:
                await self._source.aclose()
                self._count(self._source)
        finally:
            self._turn.leave()
