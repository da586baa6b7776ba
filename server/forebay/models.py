"""The names under which the one model is served."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.errors import ModelNotFound, PermissionDenied
from forebay.types import Caller

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class ModelNames:
    """`names[0]` is the one shown. With `any_name` every printable name means the model, and answers carry the name
    asked for."""

    names: tuple[str, ...]
    any_name: bool = False

    @classmethod
    def of(cls, served: tuple[str, ...], default: str) -> ModelNames:
        """From the setting `served_model_names`; without one the model goes by its own name."""
        names = tuple(dict.fromkeys(name for name in served if name != WILDCARD))
        return cls(names or (default,), any_name=WILDCARD in served)

    def names_for(self, caller: Caller) -> tuple[str, ...]:
        """Those that are shown to the caller."""
        return tuple(filter(caller.can_use, self.names))

    def resolve(self, name: str | None, caller: Caller) -> str:
        """The name that answers carry; without one the first that the caller may use. Raises `ModelNotFound` with the
        names that exist for him, `PermissionDenied` for others."""
        if name is None:
            name = next(filter(caller.can_use, self.names), self.names[0])
        elif name not in self.names and not (self.any_name and name and name.isprintable()):
            served = ", ".join(self.names_for(caller))
            raise ModelNotFound(f"The model `{name[:64]}` does not exist. Served here: {served}.", param="model")
        if not caller.can_use(name):
            raise PermissionDenied(f"Your key may not use the model `{name[:64]}`.", param="model")
        return name
