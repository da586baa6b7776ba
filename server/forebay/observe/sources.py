"""What metrics and statistics read of the parts they observe, by shape: this layer lies below them."""

from __future__ import annotations

from typing import Protocol


class InfoSource(Protocol):
    """See `forebay.engines.base.EngineInfo`."""

    @property
    def engine(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def device(self) -> str: ...


class HealthSource(Protocol):
    """See `forebay.engines.base.EngineHealth`."""

    @property
    def ok(self) -> bool: ...


class LoadSource(Protocol):
    """See `forebay.engines.base.EngineLoad`."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def kv_use(self) -> float: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_generated_tokens(self) -> int: ...
    @property
    def num_steps(self) -> int: ...


class EngineSource(Protocol):
    """See `forebay.engines.host.EngineHost`."""

    @property
    def state(self) -> str: ...
    @property
    def num_restarts(self) -> int: ...
    @property
    def current(self) -> object | None:
        """The engine that is ready, without loading one."""

    @property
    def info(self) -> InfoSource | None: ...
    def health(self) -> HealthSource: ...
    def load(self) -> LoadSource: ...


class QueueSource(Protocol):
    """See `forebay.tenants.fairness.FairQueue`."""

    @property
    def num_waiting(self) -> int: ...


class DrainSource(Protocol):
    """See `forebay.drain.Drain`."""

    @property
    def draining(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
