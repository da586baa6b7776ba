"""Named places at which a test may kill this process, as a power cut would.

`FOREBAY_FAILPOINT=name` or `name:n` kills it with SIGKILL when the place is reached, or reached for the n-th time.
"""

from __future__ import annotations

import os
import signal

FAILPOINTS = ("reserving", "reserved", "dispatched", "checkpointed", "settling", "in_commit", "committed")
KEYED_FAILPOINTS = ("storing_answer", "writing_answer", "answer_stored")
SINK_FAILPOINTS = ("sink_applied",)
"""Before and after a reservation is durable, once the engine has the request, once a checkpoint is durable, before a
settlement is handed to the writer; in the writer's thread before a COMMIT and after it. With an Idempotency-Key: before
answer and settlement are handed over, in their transaction, and once they are durable. With PostgreSQL: once it has
rows, before that is written down."""


class _Armed:
    name: str | None = None
    countdown = 0


_armed = _Armed()


def arm(name: str | None) -> None:
    """Called once, from the settings. Raises ValueError for an unknown name."""
    name, _, count = (name or "").partition(":")
    if name and name not in (known := FAILPOINTS + KEYED_FAILPOINTS + SINK_FAILPOINTS):
        raise ValueError(f"there is no failpoint {name!r}; there are {', '.join(known)}")
    _armed.name, _armed.countdown = name or None, int(count or 1)


def failpoint(name: str) -> None:
    """Ends the process here if a test has asked for it."""
    if _armed.name is name or _armed.name == name:
        _armed.countdown -= 1
        if _armed.countdown <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
