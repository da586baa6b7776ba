"""How long the disk takes to make a page durable: part of every figure in which a ledger commits."""

from __future__ import annotations

import os
import time
from pathlib import Path

from forebay.bench.figures import percentile

PAGE = bytes(4096)
IN_MEMORY_MS = 0.02
"""Below this, nothing is written anywhere."""


def fdatasync_seconds(folder: Path, count: int = 500) -> list[float]:
    """Of one page each, in a file that is removed again; ascending."""
    took = []
    path = folder / "fdatasync-page"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(count):
            os.write(fd, PAGE)
            began = time.perf_counter()
            os.fdatasync(fd)
            took.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()
    return sorted(took)


def fdatasync_figures(folder: Path) -> dict[str, float]:
    took = fdatasync_seconds(folder)
    return {"fdatasync_p50_ms": percentile(took, 50) * 1000, "fdatasync_p99_ms": percentile(took, 99) * 1000}
