"""Values: made cheaply, and the type checker keeps them as they were made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import field, replace
from pathlib import Path

import pytest

from forebay import values
from forebay.values import value

SERVER_ROOT = Path(values.__file__).parents[1]
ASSIGNS = """
from dataclasses import replace
from forebay.types import Prompt

prompt = replace(Prompt((1, 2)), text="two")
prompt.text = "three"
"""


@value
class Pair:
    first: int
    second: tuple[int, ...] = field(default_factory=tuple)


def test_equal_fields_make_equal_values() -> None:
    """In comparisons and as keys."""
    assert Pair(1) == Pair(first=1, second=())
    assert Pair(1) != Pair(2)
    assert {Pair(1): "one"}[Pair(1)] == "one"


def test_a_changed_copy_leaves_the_first_alone() -> None:
    """`dataclasses.replace` works on them."""
    pair = Pair(1)
    assert (replace(pair, second=(3,)), pair) == (Pair(1, (3,)), Pair(1))


def test_there_are_no_other_fields() -> None:
    """Slots: a mistyped name is an error."""
    with pytest.raises(AttributeError):
        Pair(1).third = 3


def test_the_type_checker_refuses_an_assignment(tmp_path: Path) -> None:
    """Also to a copy that `replace` has made; nothing else keeps them."""
    (tmp_path / "assigns.py").write_text(ASSIGNS)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "assigns.py"]
    found = subprocess.run(
        mypy, cwd=tmp_path, env={"MYPYPATH": str(SERVER_ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.stdout.splitlines() == [
        'assigns.py:6: error: Property "text" defined in "Prompt" is read-only  [misc]',
        "Found 1 error in 1 file (checked 1 source file)",
    ], found.stderr
