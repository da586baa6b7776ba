#!/usr/bin/env bash
# Style, types and layers: lint.sh DIRECTORY-OF-PROGRAMS
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1

"$bin/python" scripts/check_sizes.py
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports" --no-logo
