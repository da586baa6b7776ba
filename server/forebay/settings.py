"""The only reader of the environment. Every setting is `FOREBAY_<NAME>`; the CLI's flags override them."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from forebay.cache_settings import CacheSettings
from forebay.setting_types import Names, Secrets

EngineName = Literal["auto", "vllm", "transformers", "scripted"]


class Settings(CacheSettings):
    """Frozen after construction; descriptions become the README's table."""

    model_config = SettingsConfigDict(
        env_prefix="FOREBAY_", frozen=True, extra="forbid", populate_by_name=True, env_ignore_empty=True
    )

    # The model and what runs it
    model: str | None = Field(
        None,
        description="A local directory or a hub id; unset: `LOCAL_MODEL_PATH`, else `MODEL_NAME`, else the demo model.",
    )
    local_model_path: Path | None = Field(
        None, validation_alias="LOCAL_MODEL_PATH", description="A local directory; read where `FOREBAY_MODEL` is unset."
    )
    model_name: str | None = Field(
        None,
        validation_alias="MODEL_NAME",
        description="A local directory or a hub id; read where the two above are unset.",
    )
    revision: str | None = Field(None, description="Hub revision (commit) to pin.")
    served_model_names: Names = Field(
        (), description="Names that clients may use, comma-separated; the first is the one shown. `*` accepts any name."
    )
    engine: EngineName = Field("auto", description="`auto`, `vllm`, `transformers` or `scripted`.")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="Where the model runs.")
    device_required: bool = Field(False, description="Refuse to start instead of falling back to the CPU.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Weights and activations; `auto`: bfloat16 where the device computes in it, else float32; "
        "vLLM on a GPU takes the model's own.",
    )
    max_model_len: int | None = Field(
        None, gt=0, description="Context length in tokens; unset: the model's own, as far as KV memory allows."
    )
    max_num_seqs: int = Field(64, gt=0, description="Sequences that the engine steps together.")
    max_num_batched_tokens: int = Field(
        2048, ge=64, description="Tokens of one engine step; longer prompts are prefilled in chunks."
    )
    kv_cache_memory_mib: int | None = Field(
        None, gt=0, description="KV cache size; unset: chosen from the memory that is free."
    )
    cpu_threads: int | None = Field(
        None,
        gt=0,
        description="Threads of a model on the CPU; unset: by the number of cores, with vLLM by "
        "`VLLM_CPU_OMP_THREADS_BIND` or `OMP_NUM_THREADS` before that. As many as the cores are kept on one each, "
        "unless the former says `nobind`.",
    )
    enforce_eager: bool | None = Field(
        None,
        description="vLLM without torch.compile and CUDA graphs; unset: compiled where a compiler is found.",
    )
    lazy_load: bool = Field(False, description="Listen at once and load on the first request.")
    engine_restarts: int = Field(1, ge=0, description="How often a dead engine is restarted before the process ends.")
    stall_timeout_s: float = Field(
        60.0, gt=0, description="An engine with work and no progress for this long is unhealthy."
    )
    cache_dir: Path | None = Field(
        None, description="Where the demo model is kept; unset: `$XDG_CACHE_HOME/forebay` or `~/.cache/forebay`."
    )
    xdg_cache_home: Path | None = Field(
        None, validation_alias="XDG_CACHE_HOME", description="The user's cache directory (XDG base directories)."
    )

    # The scripted engine
    scripted_seed: int = Field(0, description="Seed of the scripted engine's text.")
    scripted_first_token_ms: float = Field(0.0, ge=0, description="Delay before a request's first token.")
    scripted_inter_token_ms: float = Field(0.0, ge=0, description="Delay between tokens.")
    scripted_journal: Path | None = Field(
        None, description="File to which the scripted engine appends what it generated, one JSON line an event."
    )

    # The listener
    host: str = Field("127.0.0.1", description="Address to bind; anything but loopback needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    admin_host: str = Field(
        "127.0.0.1", description="Address of the admin API's own listener; anything but loopback needs a key."
    )
    admin_port: int = Field(8001, ge=0, le=65535, description="Port of the admin API; 0 takes a free one.")
    root_path: str = Field("", description="Path prefix that a proxy strips.")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed.")
    allowed_hosts: Names = Field(
        (),
        description="Names beside `localhost` and addresses of loopback under which a service on loopback answers "
        "without a key, comma-separated.",
    )
    cors_origins: Names = Field((), description="Origins allowed by CORS, comma-separated.")
    tcp_keepalive_s: int = Field(
        15, gt=0, description="Idle seconds before TCP keepalive probes a silent peer; three probes, 5 s apart."
    )
    tcp_user_timeout_s: int = Field(
        30, gt=0, description="Seconds that sent bytes may stay unacknowledged before the peer counts as gone."
    )

    # What is kept
    data_dir: Path | None = Field(
        None,
        description="Where ledger, keys and budgets are kept, one server a folder; unset: `$XDG_DATA_HOME/forebay` or "
        "`~/.local/share/forebay`.",
    )
    xdg_data_home: Path | None = Field(
        None, validation_alias="XDG_DATA_HOME", description="The user's data directory (XDG base directories)."
    )
    ledger_strict: bool = Field(
        False,
        description="Hold every token back until the ledger has it on disk; else at most 16 a stream are ahead of it.",
    )
    ledger_keep_months: int | None = Field(
        None, ge=1, description="Whole months of rows kept beside the current one; unset: all. Daily totals stay."
    )
    ledger_postgres_url: SecretStr | None = Field(
        None,
        description="PostgreSQL that settled rows are copied to, `postgresql://user:password@host:5432/database`; "
        "needs the extra `postgres`.",
    )
    prices_file: Path | None = Field(
        None, description="JSON table of prices per model and kind of token; unset: engine time is what is accounted."
    )
    idempotency_ttl_s: float = Field(
        86_400.0, gt=0, description="How long the answer to an `Idempotency-Key` is kept for requests that repeat it."
    )
    idempotency_grace_s: float = Field(
        60.0, ge=0, description="How long a generation with an `Idempotency-Key` goes on when its clients have left."
    )
    idempotency_max_bytes: int = Field(
        4 * 1024 * 1024, gt=0, description="Largest answer that is kept for an `Idempotency-Key`."
    )
    idempotency_max_total_mib: int = Field(512, ge=0, description="Largest sum of the answers that are kept.")
    idempotency_max_keys: int = Field(50_000, gt=0, description="Most keys that are known as answered.")
    failpoint: str | None = Field(None, description="For tests: where the process is to kill itself.")

    # What several servers share
    redis_url: SecretStr | None = Field(
        None,
        description="Redis 7 or later, `redis://[user:password@]host:port/db`; unset: limits are this server's own.",
    )
    redis_prefix: str = Field("forebay:", description="What the names of all keys in Redis begin with.")
    redis_timeout_s: float = Field(0.2, gt=0, description="An answer of Redis that takes longer counts as none.")
    replicas: int | None = Field(
        None,
        gt=0,
        description="Servers that share Redis. While it is away, each grants one share in so many of the rate limits; "
        "once it was wiped, shared budgets open again when so many have said what they hold. Unset: all that "
        "are known.",
    )
    budget_tranche: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Part of each hard budget that a server keeps beyond its need, to go on with while Redis is away.",
    )

    # Who may ask
    api_keys: Secrets = Field((), description="API keys, comma-separated.")
    api_keys_file: Path | None = Field(None, description="File with one API key a line; `#` starts a comment.")
    jwt_jwks_url: str | None = Field(
        None,
        description="Where the identity provider's keys are: `https://...`, a file, or `http://` on this machine. "
        "With it tokens (JWT) are taken beside keys.",
    )
    jwt_audience: str | None = Field(None, description="The audience that tokens must name; tokens need it.")
    jwt_issuer: str | None = Field(None, description="The issuer that tokens must name; unset: any that signs so.")
    jwt_tenant_claim: str | None = Field(
        None, description="The claim that names the tenant; unset: all tokens are of the tenant `default`."
    )
    jwt_role_claim: str | None = Field(
        None, description="The claim that names the role or a list of roles; unset: all are members."
    )
    trusted_user_header: str | None = Field(
        None, description="Header in which keys of gateways name the user they ask for, `X-User-ID` for example."
    )
    insecure_open: bool = Field(False, description="Allow a non-loopback bind without keys.")
    open_docs: bool = Field(
        False, description="Serve /docs, /openapi.json and /metrics without a key off loopback too."
    )
    strict: bool = Field(
        True, description="Refuse unknown request fields by name; otherwise list them in `x-ignored-params`."
    )
    secret: SecretStr | None = Field(
        None,
        description="Key of the HMACs that salt prefix caches per tenant and sign the ledger; unset: the data folder's "
        "own.",
    )

    # What is capped
    max_body_bytes: int = Field(4 * 1024 * 1024, gt=0, description="Largest request body.")
    address_rpm: int = Field(
        6000,
        gt=0,
        description="Requests a minute that one address may send with wrong keys, and as many for open documents.",
    )
    max_json_depth: int = Field(64, gt=0, le=250, description="Deepest nesting of a JSON body.")
    max_header_bytes: int = Field(32 * 1024, gt=0, description="Largest sum of request header names and values.")
    max_choices: int = Field(8, gt=0, description="Largest `n`.")
    max_prompts: int = Field(128, gt=0, description="Most prompts in one completions request.")
    max_queued_requests: int = Field(256, gt=0, description="Sequences that may wait for the engine before 503.")
    max_queued_tokens: int = Field(262_144, gt=0, description="Prompt tokens that may wait for the engine before 503.")
    kept_free_slots: int | None = Field(
        None,
        ge=0,
        description="Engine slots that a key may take only while it runs fewer than that itself, so that a newcomer "
        "starts at once; unset: a sixteenth of the slots, at most 8.",
    )
    request_timeout_s: float = Field(600.0, gt=0, description="Longest life of a request.")
    render_timeout_s: float = Field(5.0, gt=0, description="Longest rendering of a chat template.")
    drain_timeout_s: float = Field(30.0, gt=0, description="How long streams may go on after SIGTERM.")

    # How answers leave
    sse_ping_s: float = Field(15.0, gt=0, description="Seconds between keep-alive comments on an idle stream.")
    reasoning_family: str = Field(
        "auto", description="`auto` (from the chat template), `none`, or a family of docs/reasoning.md."
    )
    reasoning_content: bool = Field(False, description="Send reasoning under `reasoning_content` too.")

    # What is told
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )

    @property
    def cache_root(self) -> Path:
        """Where Forebay keeps what it prepared. A relative `$XDG_CACHE_HOME` is invalid and ignored, as XDG asks."""
        if self.cache_dir is not None:
            return self.cache_dir.expanduser()
        if self.xdg_cache_home is not None and self.xdg_cache_home.is_absolute():
            return self.xdg_cache_home / "forebay"
        return Path("~/.cache/forebay").expanduser()

    @property
    def data_root(self) -> Path:
        """The folder of the data file."""
        if self.data_dir is not None:
            return self.data_dir.expanduser()
        if self.xdg_data_home is not None and self.xdg_data_home.is_absolute():
            return self.xdg_data_home / "forebay"
        return Path("~/.local/share/forebay").expanduser()

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unknown_variables() -> list[str]:
    """`FOREBAY_*` variables of the environment that no setting reads: misspelt, most likely."""
    known = {f"FOREBAY_{name.upper()}" for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith("FOREBAY_") and name not in known)
