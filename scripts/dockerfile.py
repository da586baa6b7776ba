"""What ours uses of a Dockerfile's language: stages, ARG, ENV, WORKDIR, COPY, RUN, HEALTHCHECK, ENTRYPOINT, CMD."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name, its `--flags`, and the rest of its line."""

    name: str
    flags: Mapping[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The exec form as its list, everything else split at blanks."""
        return [str(word) for word in json.loads(self.rest)] if self.rest.startswith("[") else self.rest.split()


@dataclass(slots=True)
class Stage:
    """`FROM base AS name` and what follows it."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`arguments` are the ARGs before the first FROM."""

    arguments: dict[str, str]
    stages: dict[str, Stage]

    def chain(self, name: str) -> list[Stage]:
        """The stages that `name` is built on, first one first, itself last."""
        stage = self.stages[name]
        return [*(self.chain(stage.base) if stage.base in self.stages else []), stage]


def parse(path: Path) -> Dockerfile:
    """Raises ValueError for an instruction that this parser does not know."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    dockerfile = Dockerfile({}, {})
    stage: Stage | None = None
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stage = dockerfile.stages[alias] = Stage(expand(base, dockerfile.arguments), alias)
        elif stage is None and name == "ARG":
            dockerfile.arguments.update([_assignment(rest)])
        elif stage is None or name not in {
            "ARG",
            "CMD",
            "COPY",
            "ENTRYPOINT",
            "ENV",
            "EXPOSE",
            "VOLUME",
            "HEALTHCHECK",
            "RUN",
            "USER",
            "WORKDIR",
        }:
            raise ValueError(f"unexpected instruction: {line}")
        else:
            stage.instructions.append(_instruction(name, rest))
    return dockerfile


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}`; an unset one becomes empty, as Docker has it."""
    return VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def assignments(instruction: Instruction) -> list[tuple[str, str]]:
    """The `NAME=value` pairs of an ENV or ARG."""
    return [_assignment(word) for word in instruction.rest.split()]


def _assignment(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value.strip('"')


def _instruction(name: str, rest: str) -> Instruction:
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, flags, rest.strip())
