"""`@value`: what the values are that every request and every token makes anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A slotted dataclass, compared and hashed by its fields, which nothing assigns to once it is made.

    The type checker sees to that. A frozen dataclass sees to it at run time, and takes a call for every field of every
    one that is made: 1.9 us for a `Sampling`, which is made in 0.3 us here.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
