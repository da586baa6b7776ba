"""What turns a text into a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]


class Embedder(Protocol):
    """A loaded embedding model. Calls block and come from one thread at a time.

    `name` says which model, at which precision, made a vector: vectors, and what was calibrated on them, are comparable
    only under one name.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector of shape (dimension,), float32, for each text. A text past the model's length is cut."""
        ...
