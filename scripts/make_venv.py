"""Make a virtual environment with pip in it, or say why not: python3 scripts/make_venv.py DIRECTORY"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
"""The locks hold torch for these and what lies between."""


def main() -> None:
    target = Path(sys.argv[1])
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST:
        sys.exit(
            f"Forebay's locks are for Python 3.11 to 3.13; {sys.executable} is {sys.version.split()[0]}. "
            "Name another one: make PYTHON=python3.12 ..."
        )
    # --clear: an environment that was cut short holds a Python and no pip.
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        version = ".".join(str(part) for part in sys.version_info[:2])
        sys.exit(
            f"{made.stdout}\nNo virtual environment could be made. "
            f"On Debian and Ubuntu: apt-get install python{version}-venv"
        )
    (target / ".gitignore").write_text("*\n")


if __name__ == "__main__":
    main()
