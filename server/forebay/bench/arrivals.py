"""When requests come: at a rate, evenly, as a Poisson process or in bursts, or all at once."""

from __future__ import annotations

import math
import random


def arrival_times(num_requests: int, rate: float, burstiness: float, rng: random.Random) -> list[float]:
    """Seconds from the start, ascending. `rate` is in requests a second; infinite: all at 0.

    Gaps are gamma distributed with shape `burstiness`: 1 is a Poisson process, less is burstier, more is more even.
    They are scaled so that the last request comes when the rate says, or runs of different seeds would differ by the
    luck of their sum.
    """
    if num_requests == 0 or math.isinf(rate):
        return [0.0] * num_requests
    gaps = [rng.gammavariate(burstiness, 1 / burstiness) for _ in range(num_requests)]
    scale = num_requests / rate / sum(gaps)
    times, now = [], 0.0
    for gap in gaps:
        now += gap * scale
        times.append(now)
    return times
