"""What of ours runs inside vLLM's engine process: the model in that same process, and a guard over its end.

vLLM's CPU platform would run the model in one more process, which talks to the engine through shared memory that both
poll in a loop: on a small machine the polling takes the cores the model needs. Here the engine process runs the model
itself, as vLLM does on one GPU.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from forebay.engines.vllm_impl.guard import install_guard
from forebay.engines.vllm_impl.model_threads import ModelThreads
from forebay.engines.vllm_impl.names import CONFIG_KEY


class GuardedExecutor(UniProcExecutor):
    """vLLM's single-process executor with the guard installed first, and the model's threads kept on their cores."""

    def _init_executor(self) -> None:
        extra = self.vllm_config.additional_config
        assert isinstance(extra, dict)
        ours = extra[CONFIG_KEY]
        install_guard(ours)
        self._threads = ModelThreads(ours["places"])
        super()._init_executor()

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        self._threads.keep()
        return super().execute_model(*args, **kwargs)
