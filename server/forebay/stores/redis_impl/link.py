"""The connection to Redis: one script, sent in a fixed time or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay.errors import ConfigurationError, ForebayError

if TYPE_CHECKING:
    from redis.asyncio import Redis

PARTS = ("exchange", "buckets", "promises", "holdings", "fleet", "requests")
"""The files of the script, in their order."""


class RedisUnavailable(ForebayError):
    """Redis gave no answer, or not in time. `reason` is a word or two of ours; `lost`: the connection broke."""

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lost = lost


class Script:
    """In Lua. Redis knows it by its digest, once it was sent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis names scripts by it


class RedisLink:
    """One connection, made when it is needed. Lives on one event loop."""

    def __init__(self, url: str, prefix: str, timeout_s: float) -> None:
        """Connects to nothing yet. Raises ConfigurationError for an address that is none, or without redis-py."""
        self._redis = _client(url, timeout_s)
        self._prefix = prefix
        self._timeout_s = timeout_s
        folder = Path(__file__).parent
        self._script = Script("\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in PARTS))

    def name(self, key: str) -> str:
        """Of a key, with the prefix."""
        return self._prefix + key

    async def exchange(self, payload: bytes) -> Any:
        """What the script of limits and budgets answers to this JSON. Raises `RedisUnavailable`."""
        return await self.run(self._script, "", payload)

    async def run(self, script: Script, key: str, *arguments: bytes | str | int) -> Any:
        """What a script answers; its one key is this, with the prefix. Raises `RedisUnavailable`."""
        from redis.exceptions import NoScriptError

        async with self._limits():
            try:
                return await self._redis.evalsha(script.sha, 1, self._prefix + key, *arguments)
            except NoScriptError:  # a new Redis, or SCRIPT FLUSH
                return await self._redis.eval(script.text, 1, self._prefix + key, *arguments)

    async def call(self, *command: bytes | str | int) -> Any:
        """Any other command. Raises `RedisUnavailable`."""
        async with self._limits():
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _limits(self) -> AsyncIterator[None]:
        """Time, our errors, and a cancellation that ends the call whatever becomes of it: until Python 3.12
        `asyncio.wait_for`, by which redis-py sends, swallows one that comes when it is done."""
        task = asyncio.current_task()
        assert task is not None
        num_before = task.cancelling()
        try:
            with redis_errors():
                async with asyncio.timeout(self._timeout_s):
                    yield
        finally:
            if task.cancelling() > num_before:
                raise asyncio.CancelledError

    async def close(self) -> None:
        await self._redis.aclose()


def _client(url: str, timeout_s: float) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as exc:
        raise ConfigurationError("FOREBAY_REDIS_URL needs redis-py: install forebay[redis].") from exc
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # the breaker decides when to try again
            protocol=2,
        )
    except ValueError as exc:
        raise ConfigurationError(
            "FOREBAY_REDIS_URL must be redis://, rediss:// or unix://, with a number for the port and the database."
        ) from exc


@contextmanager
def redis_errors() -> Iterator[None]:
    """redis-py's exceptions as ours, without its words: they may quote the address and the password."""
    from redis import exceptions as theirs

    try:
        yield
    except theirs.AuthenticationError as exc:
        raise RedisUnavailable("authentication failed") from exc
    except theirs.BusyLoadingError as exc:
        raise RedisUnavailable("loading its data") from exc
    except (TimeoutError, theirs.TimeoutError) as exc:
        raise RedisUnavailable("no answer in time") from exc
    except (OSError, theirs.ConnectionError) as exc:
        raise RedisUnavailable("no connection", lost=True) from exc
    except theirs.ReadOnlyError as exc:
        raise RedisUnavailable("it is a read-only replica") from exc
    except theirs.OutOfMemoryError as exc:
        raise RedisUnavailable("out of memory") from exc
    except theirs.RedisError as exc:
        raise RedisUnavailable(f"it refused the command ({type(exc).__name__})") from exc
    except Exception as exc:
        # redis-py lets through what its connection raises: RuntimeError where uvloop has closed the transport already.
        raise RedisUnavailable(f"the connection failed ({type(exc).__name__})", lost=True) from exc
