"""Whether a model can be compiled for this machine's CPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

NO_COMPILER = "There is no C++ compiler with Python's headers (g++, python3-dev), so the model runs uncompiled: slower."


def can_compile() -> bool:
    """torch's inductor builds its kernels with a C++ compiler (`CXX`, else g++) and Python's headers."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return has_headers and shutil.which(os.environ.get("CXX", "g++")) is not None
