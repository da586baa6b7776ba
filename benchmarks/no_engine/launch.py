"""A server on a vLLM whose engine costs next to nothing: what is left is the server.

    python benchmarks/no_engine/launch.py forebay serve --engine vllm --model DIRECTORY ...
    python benchmarks/no_engine/launch.py vllm --model DIRECTORY ...

Everything of vLLM's is real, configuration, tokenizer, template and the classes of its outputs, but for AsyncLLM: ours
gives each request a token once its reader has taken the one before, and starts no other process. Forebay takes tokens
without waiting, and a few leave together. vLLM's server gets whole answers whole, as it asks for them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import vllm.v1.engine.async_llm as module
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.renderers import renderer_from_config
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import RequestOutputCollector

TEXT, TOKEN = " word", 1234
NUM_BLOCKS = 4096


class Answer:
    """One request's, so far."""

    def __init__(self, request_id: str, prompt: Any, params: Any) -> None:
        self.outputs = RequestOutputCollector(params.output_kind, request_id)
        self._request_id = request_id
        self._prompt_token_ids = prompt["prompt_token_ids"]
        self._is_whole = params.output_kind is RequestOutputKind.FINAL_ONLY
        self._num_left = params.max_tokens
        self._num_held = 0

    def step(self) -> bool:
        """Whether that was its last token."""
        if self.outputs.output is not None:
            return False
        self._num_left -= 1
        self._num_held += 1
        is_last = not self._num_left
        if is_last or not self._is_whole:
            self.outputs.put(self._output(is_last))
            self._num_held = 0
        return is_last

    def _output(self, is_last: bool) -> RequestOutput:
        choice = CompletionOutput(
            index=0,
            text=TEXT * self._num_held,
            token_ids=[TOKEN] * self._num_held,
            cumulative_logprob=None,
            logprobs=None,
            finish_reason="length" if is_last else None,
        )
        return RequestOutput(
            self._request_id, None, self._prompt_token_ids, None, [choice], finished=is_last, num_cached_tokens=0
        )


class NoEngine(module.AsyncLLM):
    """In AsyncLLM's place. It steps once a turn of the event loop, while it has requests."""

    def __init__(self, vllm_config: Any, **_: Any) -> None:
        vllm_config.cache_config.num_gpu_blocks = NUM_BLOCKS
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.observability_config = vllm_config.observability_config
        self.log_requests = self.log_stats = False
        self.renderer = renderer_from_config(vllm_config)
        self.input_processor = InputProcessor(vllm_config, self.renderer)
        self._answers: dict[str, Answer] = {}
        self._is_stepping = False
        processor: Any = SimpleNamespace(
            get_num_unfinished_requests=lambda: len(self._answers),
            request_states={},  # of no request: Forebay gets records of all tokens, as vLLM's server does
            process_outputs=None,
        )
        self.output_processor = processor

    async def add_request(
        self, request_id: str, prompt: Any, params: Any, *_: Any, priority: int = 0, **__: Any
    ) -> Any:
        answer = self._answers[request_id] = Answer(request_id, prompt, params)
        if not self._is_stepping:
            self._is_stepping = True
            asyncio.get_running_loop().call_soon(self._step)
        return answer.outputs

    def _step(self) -> None:
        for request_id in [request_id for request_id, answer in self._answers.items() if answer.step()]:
            del self._answers[request_id]
        self._is_stepping = bool(self._answers)
        if self._is_stepping:
            asyncio.get_running_loop().call_soon(self._step)

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        for each in [request_id] if isinstance(request_id, str) else request_id:
            self._answers.pop(each, None)

    async def get_supported_tasks(self) -> tuple[Any, ...]:
        return ("generate",)

    async def reset_mm_cache(self) -> None:
        """There is none."""

    async def check_health(self) -> None:
        """It has nothing that fails."""

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """It takes all."""

    @property
    def is_running(self) -> bool:
        return True

    @property
    def is_stopped(self) -> bool:
        return False

    @property
    def errored(self) -> bool:
        return False

    def shutdown(self, timeout: float | None = None) -> None:
        self.renderer.shutdown()

    def __del__(self) -> None:
        """Nothing is left to end."""


def main() -> None:
    vars(module)["AsyncLLM"] = NoEngine
    server, *words = sys.argv[1:]
    sys.argv = [server, *words]
    if server == "vllm":
        from vllm.entrypoints.launchers.api_server import entry

        cast(Any, entry).main()
    else:
        from forebay.cli import main as run_forebay

        sys.exit(run_forebay())


if __name__ == "__main__":
    main()
