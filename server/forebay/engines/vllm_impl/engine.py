"""vLLM's AsyncLLM behind the engine seam: requests in, Deltas out; the model runs in a process of vLLM's."""

from __future__ import annotations

import time

import structlog

from forebay.engines.base import EngineHealth, EngineInfo, EngineLoad
from forebay.engines.model_source import ModelSource
from forebay.engines.token_ids import check_token_ids
from forebay.engines.vllm_impl.deltas import VllmDeltas
from forebay.engines.vllm_impl.launch import Launcher
from forebay.engines.vllm_impl.launched import Launched
from forebay.engines.vllm_impl.stats import EngineCounters, render_metrics
from forebay.engines.vllm_impl.steps import Steps
from forebay.engines.vllm_impl.warmup import WARM_UP
from forebay.errors import ContextTooLong, EngineUnavailable, InvalidRequest
from forebay.settings import Settings
from forebay.types import Chat, GenerationRequest, Prompt

logger = structlog.get_logger(__name__)

LEAST_CLOSE_S = 1.0


class VllmEngine:
    """One AsyncLLM and the process it runs the model in. Every call belongs to the event loop that called `start`."""

    def __init__(self, settings: Settings, source: ModelSource, device: str) -> None:
        self._settings = settings
        self._counters = EngineCounters()
        self._launcher = Launcher(settings, source, device, self._counters)
        self._launched: Launched | None = None
        self._steps: Steps | None = None
        self._open: set[str] = set()
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        return self._running().info

    async def start(self) -> None:
        """Imports vLLM, starts its process, loads the model and runs one request of every kind.

        Raises ConfigurationError for what the operator must change, EngineUnavailable if closed meanwhile.
        """
        began = time.monotonic()
        logger.info("vllm_starting", message="A first start may compile the model, which later ones need not.")
        launched = await self._launcher.launch()
        if self._closed:
            raise EngineUnavailable("The engine was closed while it started.")
        self._launched = launched
        self._steps = Steps(launched.llm.output_processor)
        self._counters.num_open = launched.llm.output_processor.get_num_unfinished_requests
        for request in WARM_UP:
            async for _ in self.generate(request):
                pass
        launched.output.starting = False
        logger.info("vllm_started", seconds=round(time.monotonic() - began, 1), **launched.info.details)

    async def close(self, timeout_s: float) -> None:
        self._closed = True
        launched, self._launched, self._steps = self._launched, None, None
        if launched is not None and self._open and not launched.dead:
            try:
                await launched.llm.abort(list(self._open))
            except Exception as exc:  # it died just now: its waiters are told so, and the rest must still be closed
                logger.warning("vllm_abort_failed", kind=type(exc).__name__)
        del launched
        await self._launcher.close(max(timeout_s, LEAST_CLOSE_S))

    def health(self) -> EngineHealth:
        if self._closed:
            return EngineHealth(alive=False, reason="The engine is closed.")
        if self._launched is None:
            return EngineHealth(alive=False, reason="The engine has not started.")
        if self._launched.dead:
            return EngineHealth(alive=False, reason="The engine's process has ended.")
        return EngineHealth(alive=True)

    def load(self) -> EngineLoad:
        return self._counters.load()

    def engine_metrics(self) -> bytes:
        """vLLM's own metrics in Prometheus' text format; empty unless the engine runs. Safe in any thread."""
        return b"" if self._launched is None else render_metrics()

    async def render(self, chat: Chat) -> Prompt:
        return await self._running().text.render(chat)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return await self._running().text.tokenize(text, add_special_tokens)

    async def detokenize(self, token_ids: list[int]) -> str:
        launched = self._running()
        check_token_ids(token_ids, launched.info.vocab_size, "tokens")
        return await launched.text.detokenize(token_ids)

    def token_strings(self, token_ids: list[int]) -> list[str]:
        launched = self._running()
        check_token_ids(token_ids, launched.info.vocab_size, "tokens")
        return [launched.text.vocabulary.text(token_id) for token_id in token_ids]

    def check(self, request: GenerationRequest) -> None:
        _check_request(request, self.info)

    def generate(self, request: GenerationRequest) -> VllmDeltas:
        launched = self._running()
        _check_request(request, launched.info)
        assert self._steps is not None
        return VllmDeltas(launched, self._steps, request, self._open)

    def _running(self) -> Launched:
        launched = self._launched
        if launched is None or self._closed:
            raise EngineUnavailable("The model's engine is not running.", retry_after_s=5)
        if launched.dead:
            raise EngineUnavailable("The model's engine has stopped.", retry_after_s=5)
        return launched


def _check_request(request: GenerationRequest, info: EngineInfo) -> None:
    """What vLLM would refuse in its own words, or not at all."""
    num_prompt_tokens = len(request.prompt.token_ids)
    if num_prompt_tokens == 0:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    if num_prompt_tokens >= info.max_model_len:
        raise ContextTooLong(
            f"The prompt has {num_prompt_tokens} tokens, which leaves no room for an answer in the model's context of "
            f"{info.max_model_len} tokens.",
            param="prompt",
        )
    check_token_ids(request.prompt.token_ids, info.vocab_size, "prompt")
    check_token_ids(request.sampling.logit_bias, info.vocab_size, "logit_bias")
    check_token_ids(request.sampling.stop_token_ids, info.vocab_size, "stop_token_ids")
