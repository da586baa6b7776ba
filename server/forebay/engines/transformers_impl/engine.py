"""The Transformers engine behind the engine seam: the event loop's side of the step loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
import torch

from forebay.engines.base import EngineHealth, EngineInfo, EngineLoad
from forebay.engines.mailbox import DeltaMailbox
from forebay.engines.model_source import ModelSource
from forebay.engines.text_codec import TextCodec
from forebay.engines.token_ids import check_token_ids
from forebay.engines.transformers_impl.build import Built, build
from forebay.engines.transformers_impl.loop import Outputs
from forebay.engines.transformers_impl.requests import SequenceFactory
from forebay.engines.transformers_impl.warmup import warm_up
from forebay.errors import EngineUnavailable
from forebay.settings import Settings
from forebay.types import Chat, GenerationRequest, Prompt

log = structlog.get_logger(__name__)

_NOTHING = EngineLoad(0, 0, 0.0, 0, 0)
_NOT_STARTED = "The engine is not started."
_CLOSED = "The engine is closed."
_DIED = "The engine has died."


@dataclass(slots=True)
class _Open:
    """A request that is being answered. `released`: its consumer has left and waits for the step loop to let go."""

    mailbox: DeltaMailbox
    num_unfinished: int
    released: asyncio.Future[None] | None = None

    def release(self) -> None:
        if self.released is not None and not self.released.done():
            self.released.set_result(None)


@dataclass(frozen=True, slots=True)
class _Parts:
    built: Built
    text: TextCodec
    sequences: SequenceFactory


class TransformersEngine:
    """Any causal language model that Transformers knows, continuously batched by a step loop on a thread of its own."""

    def __init__(self, settings: Settings, source: ModelSource, device: str) -> None:
        """`device`: a torch device, already known to be there. Loads nothing yet."""
        self._settings = settings
        self._source = source
        self._device = device
        self._parts: _Parts | None = None
        self._thread: threading.Thread | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[str, _Open] = {}
        self._end: str | None = _NOT_STARTED
        self._death: BaseException | None = None
        self._warm_up = _NOTHING

    @property
    def info(self) -> EngineInfo:
        """Known once started; raises EngineUnavailable before."""
        return self._started().built.info

    async def start(self) -> None:
        """Load, start the step thread and warm up. Raises ConfigurationError if the model cannot be loaded."""
        self._event_loop = asyncio.get_running_loop()
        self._warm_up = _NOTHING
        ready: asyncio.Future[Built] = self._event_loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="transformers-steps", daemon=True)
        self._thread.start()
        try:
            built = await ready
        except asyncio.CancelledError:
            if not ready.cancelled() and ready.exception() is None:  # handed over, and nobody else to stop it
                ready.result().loop.stop()
            raise
        sequences = SequenceFactory(built.loaded, built.info.max_model_len)
        self._parts = _Parts(built, TextCodec(built.loaded.tokenizer, self._settings.render_timeout_s), sequences)
        self._end = None
        try:
            await warm_up(self)
        except BaseException as error:
            built.loop.stop()
            raise error from self._death
        self._warm_up = self._counted()
        log.info("transformers_engine_started", device=self._device, dtype=built.info.dtype, **built.info.details)

    async def close(self, timeout_s: float) -> None:
        self._end = self._end if self._end not in (None, _NOT_STARTED) else _CLOSED
        parts, self._parts = self._parts, None
        thread, self._thread = self._thread, None
        self._death = None  # its traceback holds the model
        self._fail_open(self._end or _CLOSED)
        if parts is None:
            return  # never started, still loading (the thread ends by itself then), or closed before
        parts.built.loop.stop()
        parts.text.close()
        if thread is not None:
            await asyncio.to_thread(thread.join, timeout_s)
            if thread.is_alive():
                log.error("step_thread_left_running", timeout_s=timeout_s)
        del parts
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def health(self) -> EngineHealth:
        """Whether steps can still be made; that they are made, the host sees in `load`."""
        return EngineHealth(alive=self._end is None, reason=self._end)

    def load(self) -> EngineLoad:
        now, warm_up = self._counted(), self._warm_up
        return replace(
            now,
            num_prompt_tokens=now.num_prompt_tokens - warm_up.num_prompt_tokens,
            num_generated_tokens=now.num_generated_tokens - warm_up.num_generated_tokens,
            num_steps=now.num_steps - warm_up.num_steps,
        )

    async def render(self, chat: Chat) -> Prompt:
        return await self._started().text.render(chat)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return await self._started().text.tokenize(text, add_special_tokens)

    async def detokenize(self, token_ids: list[int]) -> str:
        check_token_ids(token_ids, self.info.vocab_size, "tokens")
        return await self._started().text.detokenize(token_ids)

    def token_strings(self, token_ids: list[int]) -> list[str]:
        check_token_ids(token_ids, self.info.vocab_size, "tokens")
        vocabulary = self._started().built.vocabulary
        return [vocabulary.text(token_id) for token_id in token_ids]

    def check(self, request: GenerationRequest) -> None:
        self._started().sequences.check(request)

    def generate(self, request: GenerationRequest) -> DeltaMailbox:
        """Raises InvalidRequest and ContextTooLong for prompts and token ids that the model cannot read."""
        parts = self._started()
        sequences = parts.sequences.make(request)
        if self._end is not None:
            raise EngineUnavailable(self._end)
        mailbox = DeltaMailbox(lambda: self._leave(request.request_id), whole=request.whole)
        self._open[request.request_id] = _Open(mailbox, len(sequences))
        parts.built.loop.submit(sequences)
        return mailbox

    def _leave(self, request_id: str) -> asyncio.Future[None] | None:
        """What the step in hand still generates for it is counted before it is let go of."""
        answered = self._open.get(request_id)
        if answered is None or self._parts is None or self._end is not None:
            return None
        answered.released = asyncio.get_running_loop().create_future()
        self._parts.built.loop.cancel(request_id)
        return answered.released

    def _counted(self) -> EngineLoad:
        """Of the step loop, which counts the warm-up too."""
        if self._parts is None:
            return self._warm_up
        loop = self._parts.built.loop
        return EngineLoad(
            running=loop.num_running,
            waiting=loop.num_waiting,
            kv_use=loop.kv_use,
            num_prompt_tokens=loop.num_prompt_tokens,
            num_generated_tokens=loop.num_generated_tokens,
            num_steps=loop.num_steps,
        )

    def _started(self) -> _Parts:
        if self._parts is None:
            raise EngineUnavailable(self._end or _NOT_STARTED)
        return self._parts

    def _run(self, ready: asyncio.Future[Built]) -> None:
        """The step thread: it loads the model, owns it, and takes the engine with it when it ends."""
        try:
            built = build(self._settings, self._source, self._device, self._deliver)
        except BaseException as error:  # whatever it is, `start` raises it
            self._call_soon(_raise_in, ready, error)
            return
        self._call_soon(self._hand_over, ready, built)
        try:
            built.loop.run()
        except BaseException as error:  # whatever ends the thread ends the engine
            self._death = error
            self._end = _DIED
            self._call_soon(self._fail_open, _DIED)  # before the log: formatting a traceback takes its time
            log.exception("step_thread_died")

    def _hand_over(self, ready: asyncio.Future[Built], built: Built) -> None:
        if ready.done():  # `start` was cancelled while the model was loading
            built.loop.stop()
        else:
            ready.set_result(built)

    def _deliver(self, outputs: Outputs) -> None:
        """Called by the step thread, once a step."""
        self._call_soon(self._put, outputs)

    def _call_soon(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._event_loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._event_loop.call_soon_threadsafe(call, *arguments)

    def _put(self, outputs: Outputs) -> None:
        for request_id, delta, num_prompt_tokens in outputs:
            answered = self._open.get(request_id)
            if answered is None:
                continue
            answered.mailbox.num_prompt_tokens += num_prompt_tokens
            if delta is not None:
                answered.mailbox.put(delta)
                answered.num_unfinished -= delta.finish_reason is not None
            if delta is None or answered.num_unfinished == 0:
                del self._open[request_id]
                answered.mailbox.close()
                answered.release()

    def _fail_open(self, reason: str) -> None:
        for answered in self._open.values():
            answered.mailbox.fail(EngineUnavailable(reason))
            answered.release()
        self._open.clear()


def _raise_in(future: asyncio.Future[Built], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
