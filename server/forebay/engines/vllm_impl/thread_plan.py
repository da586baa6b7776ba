"""How many threads compute the model on a CPU, and on which of its cores they are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from forebay.engines.limits import allowed_cpus, has_quota, parse_cpus, siblings_of, usable_cpus
from forebay.engines.sizing import choose_threads
from forebay.errors import ConfigurationError
from forebay.settings import Settings

BIND = "VLLM_CPU_OMP_THREADS_BIND"
"""vLLM's variable: a list of CPUs for each of its processes, separated by `|`, or one of CHOICES."""
NOBIND = "nobind"
CHOICES = ("", "auto", NOBIND)
THEIRS = ("OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
"""OpenMP's variables by which an operator has decided."""


@dataclass(frozen=True, slots=True)
class ThreadPlan:
    """`cpus`: what the operator binds the threads to; empty where they may run anywhere.

    `own_cpus`: of each thread one, where each has a core of its own; else empty. What else runs displaces a thread for
    its time; two threads that came to share a core, and wait for each other, would go on sharing it.
    """

    num_threads: int
    cpus: tuple[int, ...] = ()
    own_cpus: tuple[int, ...] = ()

    @property
    def binding(self) -> str:
        return ",".join(map(str, self.own_cpus or self.cpus)) or "none"

    @property
    def places(self) -> list[list[int]]:
        """Of each thread that has a core of its own: the core's CPUs, or the one that the operator names."""
        return [[cpu] if self.cpus else siblings_of(cpu) for cpu in self.own_cpus]

    @property
    def variables(self) -> dict[str, str]:
        """OpenMP's, for the process that runs the model. They bind whatever loads OpenMP's library, so that must not
        happen in this process while they are set."""
        number = {"OMP_NUM_THREADS": str(self.num_threads)}
        if not self.cpus:
            return number
        return number | {"OMP_PLACES": f"{{{','.join(map(str, self.cpus))}}}", "OMP_PROC_BIND": "true"}


def plan_threads(settings: Settings, environment: Mapping[str, str] = os.environ) -> ThreadPlan:
    """The setting, else the number of CPUs the operator binds them to, else OMP_NUM_THREADS, else by the cores there
    are beside vLLM's memory, which is of one node.

    vLLM leaves the binding to an executor that we replace, so its variable is read here. Raises ConfigurationError for
    CPUs that this process may not use, and for a number of lists other than one.
    """
    cpus = _bound(environment.get(BIND, ""))
    # Theirs may be a list, a number for each level of nesting.
    asked = re.match(r"\s*([1-9]\d*)\s*(,|$)", environment.get("OMP_NUM_THREADS", ""))
    if settings.cpu_threads is not None:
        num_threads = settings.cpu_threads
    elif cpus:
        num_threads = len(cpus)
    else:
        num_threads = int(asked[1]) if asked else choose_threads(settings, usable_cpus(one_node=True))
    own = cpus or _undecided(environment)
    return ThreadPlan(num_threads, cpus, own if 1 < len(own) == num_threads else ())


def _undecided(environment: Mapping[str, str]) -> tuple[int, ...]:
    """A CPU of each core, where the operator does not say where threads run and all of the cores' time is this
    process's: others that have a part of it would keep theirs on the same."""
    decided = environment.get(BIND) == NOBIND or any(environment.get(name) for name in THEIRS)
    if decided or has_quota() or not hasattr(os, "sched_setaffinity"):
        return ()
    return tuple(usable_cpus(one_node=True))


def _bound(value: str) -> tuple[int, ...]:
    if value in CHOICES:
        return ()
    try:
        cpus = tuple(dict.fromkeys(parse_cpus(value)))
        if not cpus:  # a range that runs backwards
            raise ValueError(value)
    except ValueError:
        raise ConfigurationError(
            f"{BIND} is {value!r}: Forebay runs the model in one process, so it has to be one list of CPUs, as 0-3,8."
        ) from None
    if unusable := set(cpus) - set(allowed_cpus()):
        raise ConfigurationError(
            f"{BIND} is {value!r}, but this process may not use the CPUs {', '.join(map(str, sorted(unusable)))}."
        )
    return cpus
