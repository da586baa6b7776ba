"""A served model with opinions: the scripted engine, which answers yes or no as a test has it, and a server on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from forebay.admin_app import create_admin_app
from forebay.app import create_app
from forebay.cache.verification.check_set import TASKS, check_set
from forebay.cache.verification.verification import Verification
from forebay.engines.base import EngineInfo
from forebay.engines.scripted import ScriptedEngine
from forebay.engines.scripted.vocabulary import PIECES
from forebay.ledger.reconcile import Reconciled
from forebay.services import Services, build_services
from forebay.settings import Settings
from forebay.types import Alternative, CountedDeltas, Delta, EngineWork, GenerationRequest, TokenLogprob
from support.administrator import OWNER

Opinion = Callable[[str], float]
"""Of what it is asked: the log of the odds of yes against no."""

TRUTH = {check.prompt: check.same for task in TASKS for check in check_set(task)}
SURE = 4.0
YES, NO = (259 + PIECES.index(word) for word in ("Yes", "No"))


def knows(asked: str) -> float:
    """Right about the check set, and says no to all else."""
    return SURE if TRUTH.get(asked) else -SURE


def err(opinion: Opinion, *, every: int, of: bool) -> Opinion:
    """Wrong about one in so many pairs of the check set whose truth is `of`."""
    wrong = set([prompt for prompt, same in TRUTH.items() if same is of][::every])
    return lambda asked: -opinion(asked) if asked in wrong else opinion(asked)


def obeys(asked: str) -> float:
    """Right, unless a text that it is to compare tells it to say yes."""
    texts = asked.rpartition("\n")[0].rpartition("\n\n")[2]
    return SURE if "Yes" in texts.partition(" Yes or No")[0] and not TRUTH[asked] else knows(asked)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`, looked at every few milliseconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions of engines, which set no event
            await asyncio.sleep(0.005)


@dataclass
class OpinionatedEngine:
    """Builds engines; what they were asked is kept."""

    opinion: Opinion
    has_template: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    """Directives for what it is asked for one word."""
    asked: list[str] = field(default_factory=list)

    def build(self, settings: Settings) -> ScriptedEngine:
        return _Engine(settings, self)


class _Engine(ScriptedEngine):
    def __init__(self, settings: Settings, keeper: OpinionatedEngine) -> None:
        super().__init__(settings)
        self._keeper = keeper

    @property
    def info(self) -> EngineInfo:
        return super().info if self._keeper.has_template else replace(super().info, chat_template=None)

    def generate(self, request: GenerationRequest) -> Any:
        if set(request.sampling.logit_bias) != {YES, NO}:
            return super().generate(request)
        assert request.prompt.text is not None
        asked = request.prompt.text.removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
        self._keeper.asked.append(asked)
        score = self._keeper.opinion(asked)
        script = {"forebay_script": "Yes" if score > 0 else "No", **self._keeper.metadata}
        return _Reported(super().generate(replace(request, metadata=script)), score)


class _Reported:
    """Deltas that report the model's opinion as its log-probabilities."""

    def __init__(self, source: CountedDeltas, score: float) -> None:
        self._source = source
        self._top = tuple(
            Alternative(token, word, word.encode(), -math.log1p(math.exp(sign * score)))
            for token, word, sign in ((YES, "Yes", -1), (NO, "No", 1))
        )

    @property
    def num_tokens(self) -> int:
        return self._source.num_tokens

    @property
    def work(self) -> EngineWork:
        return self._source.work

    def __aiter__(self) -> _Reported:
        return self

    async def __anext__(self) -> Delta:
        delta = await anext(self._source)
        chosen = [next(one for one in self._top if one.token_id == token) for token in delta.token_ids]
        return replace(delta, logprobs=tuple(TokenLogprob(one, self._top) for one in chosen))

    async def aclose(self) -> None:
        await self._source.aclose()


@dataclass
class Served:
    """A running server with the semantic tier, in the test's own process."""

    services: Services
    model: OpinionatedEngine
    client: httpx.AsyncClient
    admin: httpx.AsyncClient

    @property
    def verification(self) -> Verification:
        assert self.services.verification is not None
        return self.services.verification

    async def checked(self) -> Mapping[str, str]:
        """Where the model stands, once the check set was asked."""
        await until(lambda: not {"waiting", "checking"} & set(self.verification.standings.values()))
        return self.verification.standings

    async def reconciled(self) -> Reconciled:
        """Once nothing runs and all of it is settled."""
        async with asyncio.timeout(10):
            while True:
                self.services.tick()
                found = await self.services.reconciliation.run()
                if not found.num_in_flight:
                    return found
                await asyncio.sleep(0.02)

    async def metrics(self) -> str:
        return (await self.client.get("/metrics")).text

    async def status(self) -> Any:
        return (await self.admin.get("/admin/cache")).json().get("verification")

    async def ask(self, **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": "What is a weir?"}]
        return await self.client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 20, **fields})


@asynccontextmanager
async def served(opinion: Opinion = knows, *, has_template: bool = True, **settings: Any) -> AsyncIterator[Served]:
    model = OpinionatedEngine(opinion, has_template)
    with TemporaryDirectory() as folder:
        made = Settings(
            _env_file=None, engine="scripted", data_dir=folder, cache="semantic", api_keys=OWNER, **settings
        )
        services = build_services(made, lambda: model.build(made))
        app = create_app(made, services)
        async with app.router.lifespan_context(app):
            own = {"base_url": "http://localhost", "headers": {"authorization": f"Bearer {OWNER}"}}
            async with (
                httpx.AsyncClient(transport=httpx.ASGITransport(app), **own) as client,
                httpx.AsyncClient(transport=httpx.ASGITransport(create_admin_app(made, services)), **own) as admin,
            ):
                yield Served(services, model, client, admin)
