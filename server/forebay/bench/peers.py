"""Other servers of the same model by one word: the command that starts each, and what a request to it needs."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    from forebay.bench.plan import Plan
    from forebay.engines.machine import Machine
    from forebay.engines.model_source import ModelSource

PEERS: Mapping[str, str] = {
    "vllm": "vLLM's own server with its defaults",
    "vllm-same-threads": "the same with the threads that Forebay gives the model on a CPU",
    "transformers": "`transformers serve`",
    "transformers-continuous": "`transformers serve --continuous-batching`",
}
SERVING = ("fastapi", "openai", "pydantic", "uvicorn")
"""What `transformers serve` wants beside Transformers (its extra `serving`)."""
NO_END = {"generation_config": orjson.dumps({"eos_token_id": -1, "pad_token_id": 0}).decode()}
"""How `transformers serve`, which refuses `ignore_eos`, is asked for answers of full length."""


@dataclass(frozen=True, slots=True)
class Command:
    """`env` is what it gets beside what this process has; `model` is what requests call the model."""

    words: Sequence[str]
    model: str
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """For a shell."""
        return shlex.join([*(f"{name}={value}" for name, value in self.env.items()), *self.words])


def engine_of(peer: str) -> Literal["vllm", "transformers"]:
    """Forebay's engine that runs the same library."""
    return "vllm" if peer.startswith("vllm") else "transformers"


def check_installed(peer: str, machine: Machine) -> None:
    """Raises ConfigurationError that says what to install."""
    if engine_of(peer) == "vllm":
        if machine.vllm is None:
            raise ConfigurationError(
                f"--peer {peer}: vLLM is not installed here: `make serve ENGINE=vllm` installs it."
            )
    elif missing := [name for name in ("transformers", *SERVING) if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(
            f"--peer {peer}: `transformers serve` lacks {', '.join(missing)}: pip install 'transformers[serving]'."
        )


def command_of(peer: str, source: ModelSource, port: int, kv_cache_mib: int, machine: Machine) -> Command:
    """On loopback. vLLM's KV cache has a size, because unset it takes nearly all memory, of which Forebay has a part.

    Raises ConfigurationError for threads of a model that runs on a GPU.
    """
    offline = {"HF_HUB_OFFLINE": "1"} if source.local else {}
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if engine_of(peer) == "transformers":
        words = [sys.executable, "-m", "transformers.cli.transformers", "serve", source.path_or_id, *where]
        return Command([*words, *(["--continuous-batching"] * peer.endswith("continuous"))], source.path_or_id, offline)
    env = {"VLLM_NO_USAGE_STATS": "1", **offline}
    if peer == "vllm-same-threads":
        if machine.vllm != "cpu":
            raise ConfigurationError(f"--peer {peer} is for a model on a CPU: --peer vllm.")
        env |= _threads(source)
    # `vllm serve` asks for metadata of the name `vllm`, which the build for CPUs lacks: the module is what it runs.
    cpu, other = "vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.cli.main"
    start = [cpu, "--model"] if machine.vllm == "cpu" else [other, "serve"]
    kv_cache = ["--kv-cache-memory-bytes", str(kv_cache_mib << 20)]
    return Command([sys.executable, "-m", *start, source.path_or_id, *where, *kv_cache], source.path_or_id, env)


def plan_for(peer: str, plan: Plan) -> Plan:
    """The same load in the words that the peer understands."""
    if engine_of(peer) == "vllm" or not plan.ignore_eos:
        return plan
    extra: dict[str, Any] = {**NO_END, **plan.extra_body}
    return replace(plan, ignore_eos=False, extra_body=extra)


def _threads(source: ModelSource) -> dict[str, str]:
    """As many threads as Forebay's engine has here, bound and spinning as they do there."""
    from forebay.engines.vllm_impl.environment import vllm_environment
    from forebay.engines.vllm_impl.thread_plan import BIND, NOBIND, plan_threads
    from forebay.settings import Settings

    asked: dict[str, Any] = {"engine": "vllm"}
    settings = Settings(**asked)
    plan = plan_threads(settings)
    bound = plan.binding != "none"
    binding = {BIND: plan.binding} if bound else {BIND: NOBIND, "OMP_NUM_THREADS": str(plan.num_threads)}
    spinning = vllm_environment(settings, source, "cpu").get("GOMP_SPINCOUNT")
    return binding | ({"GOMP_SPINCOUNT": spinning} if spinning else {})
