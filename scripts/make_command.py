"""Make the command `forebay` in a checkout's virtual environment: .venv/bin/python scripts/make_command.py FILE"""

from __future__ import annotations

import sys
from pathlib import Path

SERVER = Path(__file__).resolve().parents[1] / "server"
COMMAND = """#!{python}
import os
import sys

sys.path.insert(0, {server!r})
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [{server!r}, os.environ.get("PYTHONPATH")]))
from forebay.cli import main

raise SystemExit(main())
"""


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(COMMAND.format(python=sys.executable, server=str(SERVER)))
    path.chmod(0o755)


if __name__ == "__main__":
    main()
