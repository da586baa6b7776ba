"""Starting vLLM: environment, signals and its process, in a thread that can be given up."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import multiprocessing
import multiprocessing.resource_tracker
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import structlog

from forebay.engines.base import EngineInfo
from forebay.engines.model_source import ModelSource
from forebay.engines.text_codec import TextCodec
from forebay.engines.vllm_impl.compiling import code_folder, obstacle_to_compiling
from forebay.engines.vllm_impl.environment import lent_environment, vllm_environment
from forebay.engines.vllm_impl.errors import ErrorTable, explain_start
from forebay.engines.vllm_impl.launched import Launched
from forebay.engines.vllm_impl.names import (
    ASYNC_LLM,
    CONFIG_KEY,
    ENGINE_ARGS,
    GUARDED_EXECUTOR,
    check_vllm,
    installed_version,
    load,
)
from forebay.engines.vllm_impl.output import ProcessOutput
from forebay.engines.vllm_impl.sizing import MIB, KvShape, engine_args, kv_cache_bytes
from forebay.engines.vllm_impl.stats import EngineCounters
from forebay.engines.vllm_impl.thread_plan import ThreadPlan, plan_threads
from forebay.errors import ConfigurationError, EngineUnavailable
from forebay.settings import Settings

logger = structlog.get_logger(__name__)

T = TypeVar("T")
PROCESS_NAME = "EngineCore"
CLOSED = "The engine was closed while it started."
POLL_S = 0.05
HELD_BACK = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals that reach a whole group of processes: the engine's must go on while the server drains."""


class Launcher:
    """Starts one vLLM, and ends it or the attempt."""

    def __init__(self, settings: Settings, source: ModelSource, device: str, counters: EngineCounters) -> None:
        self._settings = settings
        self._source = source
        self._device = device
        self._counters = counters
        self._stage = threading.Lock()
        self._given_up = False
        self._building = False
        self._launched: Launched | None = None
        self._strangers: set[int | None] = set()

    async def launch(self) -> Launched:
        """Raises ConfigurationError for what the operator must change, EngineUnavailable if closed meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            """Holds nothing of vLLM: libraries keep exceptions of their imports, and with them this frame, for good."""
            error = None
            try:
                self._in_vllm_environment(check_vllm)
                with self._stage:
                    if self._given_up:
                        raise EngineUnavailable(CLOSED)
                    self._building = True
                self._launched = self._in_vllm_environment(self._launch)
            except BaseException as exc:  # whatever it is, the waiting coroutine raises it
                error = exc
            finally:
                self._building = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, error)

        self._strangers = {process.pid for process in multiprocessing.active_children()}
        threading.Thread(target=run, name="vllm-launch", daemon=True).start()
        await done
        launched = self._launched
        if launched is None:
            raise EngineUnavailable(CLOSED)
        return launched

    async def close(self, timeout_s: float) -> None:
        """Ends what runs, or the start that is going on; idempotent. While vLLM is imported there is nothing to end."""
        deadline = time.monotonic() + timeout_s
        with self._stage:
            self._given_up = True
        while self._building and time.monotonic() < deadline:
            for process in self._own_processes():
                process.kill()
            await asyncio.sleep(POLL_S)
        launched, self._launched = self._launched, None
        if launched is not None:
            await launched.close(max(0.0, deadline - time.monotonic()))
            del launched
            # AsyncLLM is part of cycles and must not live until the interpreter ends: its finalizer fails noisily then.
            await asyncio.to_thread(gc.collect)

    def _own_processes(self) -> list[BaseProcess]:
        children = multiprocessing.active_children()
        return [child for child in children if child.name == PROCESS_NAME and child.pid not in self._strangers]

    def _in_vllm_environment(self, call: Callable[[], T]) -> T:
        defaults = vllm_environment(self._settings, self._source, self._device)
        with lent_environment(defaults), _signals_held_back(), self._vllm_quiet():
            return call()

    def _launch(self) -> Launched:
        output = ProcessOutput()
        llm: Any = None
        try:
            threads = plan_threads(self._settings) if self._device == "cpu" else None
            sockets = {"VLLM_RPC_BASE_PATH": str(output.folder)}  # which vLLM leaves behind
            with lent_environment(sockets, threads.variables if threads else None):
                llm = self._start(output, threads)
            tokenizer = copy.deepcopy(llm.get_tokenizer())  # vLLM uses its own on the event loop
            text = TextCodec(tokenizer, self._settings.render_timeout_s)
            return Launched(llm, self._describe(llm, text, threads), text, ErrorTable(), output)
        except BaseException as exc:
            _let_go(exc)
            if llm is not None:
                llm.shutdown(timeout=0)
            output.close()
            if self._given_up:
                raise EngineUnavailable(CLOSED) from exc
            raise self._explain(exc, output) from exc

    def _start(self, output: ProcessOutput, threads: ThreadPlan | None) -> Any:
        args = engine_args(self._settings, self._source, self._device)
        if args["enforce_eager"] and self._settings.enforce_eager is None:
            obstacle = obstacle_to_compiling(code_folder(self._settings.cache_root))
            logger.warning("vllm_uncompiled", reason=f"The model runs uncompiled, which is slower: {obstacle}.")
        args["distributed_executor_backend"] = load(GUARDED_EXECUTOR)
        args["additional_config"] = {
            CONFIG_KEY: {
                "output": output.address,
                "folder": str(output.folder),
                "log_level": self._process_log_level(),
                "places": [] if threads is None else threads.places,
            }
        }
        try:
            config = load(ENGINE_ARGS)(**args).create_engine_config()
        except (ValueError, OSError) as exc:
            raise ConfigurationError(explain_start(exc)) from exc
        if self._device == "cpu" and config.cache_config.kv_cache_memory_bytes is None:
            config.cache_config.kv_cache_memory_bytes = kv_cache_bytes(self._settings, _kv_shape(config))
        if self._given_up:
            raise EngineUnavailable(CLOSED)
        return load(ASYNC_LLM).from_vllm_config(config, stat_loggers=[self._counters.stat_logger()])

    def _describe(self, llm: Any, text: TextCodec, threads: ThreadPlan | None) -> EngineInfo:
        model, cache, scheduler = (
            llm.vllm_config.model_config, llm.vllm_config.cache_config, llm.vllm_config.scheduler_config
        )  # fmt: skip
        details: dict[str, Any] = {
            "vllm": installed_version(),
            "block_size": cache.block_size,
            "kv_cache_tokens": cache.num_gpu_blocks * cache.block_size,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "eager": model.enforce_eager,
            "prefix_caching": cache.enable_prefix_caching,
        }
        if threads is not None:
            details["threads"] = threads.num_threads
            details["thread_binding"] = threads.binding
            details["kv_cache_mib"] = cache.kv_cache_memory_bytes // MIB
        return EngineInfo(
            engine="vllm",
            model_id=self._source.name,
            revision=self._source.revision,
            max_model_len=model.max_model_len,
            vocab_size=model.get_vocab_size(),
            num_slots=scheduler.max_num_seqs,
            device=self._device,
            dtype=str(model.dtype).removeprefix("torch."),
            chat_template=text.chat_template,
            special_tokens=text.vocabulary.special_tokens,
            step_cpus=tuple(threads.places[0]) if threads is not None and threads.places else (),
            details=details,
        )

    def _explain(self, error: BaseException, output: ProcessOutput) -> BaseException:
        """What the operator reads. vLLM says of a failure in its process only that there was one."""
        if isinstance(error, ConfigurationError) or not isinstance(error, Exception):
            return error
        if output.last_error is None and output.tail:
            logger.error("vllm_process_ended", output="\n".join(output.tail))
        return ConfigurationError(explain_start(error, output.last_error))

    def _process_log_level(self) -> str:
        return "INFO" if self._settings.log_level == "debug" else "WARNING"

    @contextlib.contextmanager
    def _vllm_quiet(self) -> Iterator[None]:
        """While it starts, vLLM warns of every choice that differs from its defaults; afterwards warnings count.

        Python warnings of what it imports are about other libraries; where they are errors, imports would break.
        """
        theirs = logging.getLogger("vllm")
        debug = self._settings.log_level == "debug"
        theirs.setLevel(logging.INFO if debug else logging.ERROR)
        try:
            with warnings.catch_warnings(action="ignore"):
                try:
                    yield
                finally:
                    gc.collect()  # what imports and failed starts left open, and warns when it goes
        finally:
            theirs.setLevel(logging.INFO if debug else logging.WARNING)


def _let_go(error: BaseException | None) -> None:
    """Empties the frames of an exception, which would keep half of a vLLM, sockets and all, as long as it is kept."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _kv_shape(config: Any) -> KvShape:
    model, parallel = config.model_config, config.parallel_config
    values_per_token = 2 * model.get_num_layers(parallel) * model.get_num_kv_heads(parallel) * model.get_head_size()
    return KvShape(values_per_token * model.dtype.itemsize, model.max_model_len)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Blocked in this thread, and so in the process it starts, which inherits the mask.

    The resource tracker must run before: starting it would unblock them.
    """
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
