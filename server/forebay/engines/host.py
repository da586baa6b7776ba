"""The life of one engine: loaded eagerly or on first use, watched, restarted when dead, closed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import structlog

from forebay.engines.base import Engine, EngineHealth, EngineInfo, EngineLoad
from forebay.engines.loop_place import LoopPlace
from forebay.engines.memory import explain_out_of_memory
from forebay.engines.progress import ProgressWatch
from forebay.engines.threads import call_for
from forebay.errors import ConfigurationError, EngineUnavailable
from forebay.types import NO_WORK, EngineWork

logger = structlog.get_logger(__name__)

T = TypeVar("T")
HostState = Literal["unloaded", "loading", "ready", "restarting", "failed", "closed"]

POLL_S = 0.25
CLOSE_DEAD_S = 5.0
RELOAD_PAUSE_S = 1.0
FIRST_RETRY_AFTER_S = 10.0
NOTHING_LOADED = EngineLoad(running=0, waiting=0, kv_use=0.0, num_prompt_tokens=0, num_generated_tokens=0, num_steps=0)
REASONS: dict[HostState, str] = {
    "unloaded": "The model is loaded on the first request.",
    "loading": "The model is loading.",
    "restarting": "The engine died and is restarting.",
    "failed": "The engine failed.",
    "closed": "The engine is closed.",
}


class EngineHost:
    """Owns one engine at a time; every call belongs to one event loop.

    `build` makes an engine that is not started; it may block, and runs in a thread of its own. A dead engine is closed
    and built anew up to `max_restarts` times, of which each that fails is one; then, and when the first load fails,
    `on_fatal` gets a sentence for the operator, after which the state stays `failed`. `reason` and the reasons in
    `health` are fit for clients: they hold no exception text. `misconfigured` says that what failed was a
    ConfigurationError.
    """

    def __init__(
        self,
        build: Callable[[], Engine],
        *,
        lazy: bool,
        stall_timeout_s: float,
        max_restarts: int,
        on_fatal: Callable[[str], None],
    ) -> None:
        self.state: HostState = "unloaded"
        self.info: EngineInfo | None = None
        self.num_restarts = 0
        self.misconfigured = False
        self._build = build
        self._lazy = lazy
        self._max_restarts = max_restarts
        self._on_fatal = on_fatal
        self._progress = ProgressWatch(stall_timeout_s)
        self._engine: Engine | None = None
        self._warm_up: EngineLoad | None = None
        self._retired = NO_WORK
        self._place = LoopPlace()
        self._supervisor: asyncio.Task[None] | None = None
        self._first_load = asyncio.Event()
        self._load_began = 0.0
        self._load_s = FIRST_RETRY_AFTER_S

    @property
    def current(self) -> Engine | None:
        """The engine that is ready; never loads one."""
        return self._engine if self.state == "ready" else None

    @property
    def reason(self) -> str | None:
        """Why there is no healthy engine; None while there is one."""
        return self.health().reason

    def begin(self) -> None:
        """Eager: starts loading in the background. Lazy: nothing. Called on the running loop."""
        if not self._lazy:
            self._start()

    async def engine(self) -> Engine:
        """The ready engine; lazy, the first callers load it and wait for the same load.

        Raises EngineUnavailable with `retry_after_s` where there is none to wait for.
        """
        if self._lazy and self.state in ("unloaded", "loading"):
            self._start()
            await self._first_load.wait()
        engine = self._engine
        if self.state != "ready" or engine is None or not engine.health().alive:
            raise EngineUnavailable(REASONS.get(self.state, REASONS["restarting"]), retry_after_s=self._retry_after_s())
        return engine

    def health(self) -> EngineHealth:
        """`alive` only while ready: before, between and after engines nothing can step, and `state` says which."""
        if self.state != "ready" or self._engine is None:
            return EngineHealth(alive=False, reason=REASONS.get(self.state))
        health = self._engine.health()
        if health.ok and self._progress.stalled:
            return EngineHealth(alive=True, progressing=False, reason=self._progress.reason)
        return health

    def load(self) -> EngineLoad:
        """The engine's load; all zeros when none is ready."""
        return NOTHING_LOADED if self.state != "ready" or self._engine is None else self._engine.load()

    def work(self) -> EngineWork:
        """Of all engines there were since the process began, by their own counters, less what warmed them up."""
        now, before = self._retired, self._warm_up
        if self._engine is None or before is None:
            return now
        load = self._engine.load()
        return EngineWork(
            now.prompt_tokens + load.num_prompt_tokens - before.num_prompt_tokens,
            now.generated_tokens + load.num_generated_tokens - before.num_generated_tokens,
        )

    def num_sequences(self) -> int:
        """Those that the engine has, running or waiting."""
        load = self.load()
        return load.running + load.waiting

    async def close(self, timeout_s: float) -> None:
        """Ends loading, watching and the engine, which gets `timeout_s`; idempotent."""
        self.state = "closed"
        self._first_load.set()
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait([supervisor])
        engine = self._retire()
        if engine is not None:
            await engine.close(timeout_s)

    def _start(self) -> None:
        if self._supervisor is None and self.state == "unloaded":
            self.state = "loading"
            # A lazy load is not the first request's: its log lines must not carry that request's id.
            context = contextvars.Context()
            self._supervisor = asyncio.create_task(self._supervise(), name="engine-host", context=context)

    async def _supervise(self) -> None:
        try:
            engine = await self._load_engine()
            await self._watch_until_dead(engine)
            while self.num_restarts < self._max_restarts:
                self.num_restarts += 1
                logger.error("engine_restarting", attempt=self.num_restarts, of=self._max_restarts)
                await self._discard()
                if (replacement := await self._reload()) is not None:
                    await self._watch_until_dead(replacement)
            self._fail(f"The engine died; restarts used: {self._max_restarts} of {self._max_restarts}.")
        except ConfigurationError as exc:
            self.misconfigured = True
            self._fail(str(exc))
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as exc:  # panics of Rust extensions and a library's SystemExit are no Exceptions
            logger.exception("engine_host_failed")
            self._fail(explain_out_of_memory(exc) or f"The engine could not be loaded or watched: {exc!r}")

    async def _load_engine(self) -> Engine:
        self._load_began = time.monotonic()
        engine = self._engine = await _in_daemon_thread(self._build)
        await engine.start()
        self._load_s = time.monotonic() - self._load_began
        self._warm_up = engine.load()
        self.info = engine.info
        self._place.keep_off(self.info.step_cpus)
        self._progress.reset()
        self.state = "ready"
        self._first_load.set()
        logger.info("engine_ready", engine=self.info.engine, model=self.info.model_id, load_s=round(self._load_s, 2))
        return engine

    async def _reload(self) -> Engine | None:
        """The new engine; None, after a while, where it could not be loaded and restarts are left.

        The same settings have loaded before, so even a ConfigurationError may pass: what the dead engine held can still
        be in use, and vLLM reports most failures of its process as one.
        """
        try:
            return await self._load_engine()
        except Exception:
            if self.num_restarts == self._max_restarts:
                raise
            logger.exception("engine_reload_failed")
            await asyncio.sleep(RELOAD_PAUSE_S)
            return None

    async def _watch_until_dead(self, engine: Engine) -> None:
        while (health := engine.health()).alive:
            was_stalled = self._progress.stalled
            self._progress.observe(engine.load())
            if self._progress.stalled and not was_stalled:
                logger.error("engine_stalled", reason=self._progress.reason)
            elif was_stalled and not self._progress.stalled:
                logger.info("engine_recovered")
            await asyncio.sleep(POLL_S)
        logger.error("engine_died", reason=health.reason)

    async def _discard(self) -> None:
        """Closes a dead engine, or one that did not start. One that cannot even be closed must not stop the next."""
        self.state = "restarting"
        self._load_began = time.monotonic()
        engine = self._retire()
        try:
            if engine is not None:
                await engine.close(CLOSE_DEAD_S)
        except Exception:
            logger.exception("engine_close_failed")

    def _retire(self) -> Engine | None:
        """The engine there was; what it counted stays. The next one's process may run anywhere again."""
        self._place.leave()
        self._retired = self.work()
        engine, self._engine, self._warm_up = self._engine, None, None
        return engine

    def _fail(self, sentence: str) -> None:
        self.state = "failed"
        self._first_load.set()
        self._on_fatal(sentence)

    def _retry_after_s(self) -> float:
        """When the load that runs should be over, judged by the last one."""
        return max(1.0, self._load_s - (time.monotonic() - self._load_began))


async def _in_daemon_thread(call: Callable[[], T]) -> T:
    """Runs `call` in a thread that the end of the process does not wait for: a download must not outlive SIGTERM."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=call_for, args=(future, call), name="engine-build", daemon=True).start()
    return await future
