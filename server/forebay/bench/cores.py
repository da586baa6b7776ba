"""Server and client on a core each, where there are two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil


def two_cores() -> tuple[int, int] | None:
    """One for the server and one for the client; None where there are not two, or no choice."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return None
    cores = sorted(process.cpu_affinity() or ())
    return (cores[0], cores[-1]) if len(cores) > 1 else None


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """This process on one core meanwhile; None leaves it where it is."""
    if core is None:
        yield
        return
    process = psutil.Process()
    before = process.cpu_affinity()
    process.cpu_affinity([core])
    try:
        yield
    finally:
        process.cpu_affinity(before)
